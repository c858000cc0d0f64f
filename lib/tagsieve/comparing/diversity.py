"""How far each row of a selection is from the nearest other one, in the space of an encoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.comparing.rows import KEY
from tagsieve.engines.context import Context
from tagsieve.engines.nearest import Nearest
from tagsieve.engines.vector_rows import WRITTEN, Group, VectorRows, vectors_in
from tagsieve.engines.vectors import Array
from tagsieve.engines.workers import Workers

if TYPE_CHECKING:
    from ray import ObjectRef

TASK_BYTES = 64 * 2**20
"""Vectors of one task: all others of the selection are read once for each of them."""


@dataclass(frozen=True)
class Diversity:
    """The mean of 1 - cosine similarity to the nearest other row, over the `rows` of a selection
    that have a usable vector of an encoder."""

    selection: str
    encoder: str
    rows: int
    mean: float


def diversity(context: Context, rows: DataFrame, names: Sequence[str]) -> Iterator[Diversity]:
    """The nearest-neighbour distance of each selection by each encoder that has vectors of at
    least two of its rows, by Ray actors.

    Reads `selection`, `pool`, `sample_id`, and `embeddings`. A row that is in two pools of a
    selection is at distance 0. A worker holds the vectors of one task, and one group of files more
    at a time.
    """
    spark, lake = context.engines.spark, context.lake
    stored = context.pinned("embeddings").select("sample_id", "encoder", "vector")
    of_rows = rows.select("selection", *KEY).join(stored, "sample_id")
    there = of_rows.groupBy("selection", "encoder").count().where("count > 1").collect()
    found = sorted((names.index(row["selection"]), row["encoder"]) for row in there)
    if not found:
        return
    context.engines.ray()
    folder = lake.work_uri(context.run.run_id, "vectors")
    numbered = [(names[place], encoder, n) for n, (place, encoder) in enumerate(found)]
    places = spark.createDataFrame(numbered, "selection string, encoder string, place int")
    placed = of_rows.join(F.broadcast(places), ["selection", "encoder"]).select("place", "vector")
    writer = placed.repartition("place").write.options(**WRITTEN).partitionBy("place")
    writer.parquet(lake.spark_uri(folder))
    ray_config = context.engines.ray_config
    with Workers(NearestDistances, [()], ray_config, "compare", "ray.cpus") as workers:
        for selection, encoder, place in numbered:
            distances = _distances(workers, vectors_in(f"{folder}/place={place}"))
            if len(distances):
                mean = math.fsum(distances) / len(distances)
                yield Diversity(selection, encoder, len(distances), mean)


def _distances(workers: Workers, vectors: VectorRows) -> Array:
    """Of all usable rows that have another one, in the order of the files."""

    def search(actor: Any, groups: list[Group]) -> ObjectRef[Any]:
        return actor.distances.remote(vectors, groups)  # type: ignore[no-any-return]

    tasks = 1 + vectors.count * vectors.width * 4 // TASK_BYTES
    shares = [groups for groups in vectors.shares(tasks) if groups]
    parts = [np.empty(0), *(part for _, part in workers.in_order(shares, search))]
    return np.concatenate(parts)


class NearestDistances:
    """A Ray actor: distances of the rows of some groups to the nearest of all rows."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def distances(self, rows: VectorRows, groups: list[Group]) -> Array:
        """float64 [usable rows of the groups]; none where there is no other row."""
        own = [rows.vectors(group)[:2] for group in groups]
        positions, vectors = (np.concatenate(each) for each in zip(*own, strict=True))
        if not len(positions):
            return np.empty(0)
        nearest = Nearest(positions, vectors, 1)
        for group in rows.groups:
            nearest.see(*rows.vectors(group)[:2])
        found: Array = nearest.distances
        there: Array = found[np.isfinite(found)]
        return there
