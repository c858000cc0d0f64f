"""How far each row of a selection is from the nearest other one, in the space of an encoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.nearest import Nearest
from tagsieve.engines.vector_rows import WRITTEN, Group, VectorRows, vectors_in
from tagsieve.engines.vectors import Array
from tagsieve.engines.workers import Workers

if TYPE_CHECKING:
    from ray import ObjectRef

TASK_BYTES = 64 * 2**20
"""Vectors of one task: all others of the selection are read once for each of them."""

_WHOLE = 2**63 - 1
"""No draw is greater."""


@dataclass(frozen=True)
class Diversity:
    """The mean of 1 - cosine similarity to the nearest other row, over `measured` of the `rows` of
    a selection that have a usable vector of an encoder."""

    selection: str
    encoder: str
    rows: int
    measured: int
    mean: float


def diversity(
    context: Context, rows: DataFrame, names: Sequence[str], most: int
) -> Iterator[Diversity]:
    """The nearest-neighbour distance of each selection by each encoder that has vectors of at
    least two of its rows, by Ray actors.

    Reads `selection`, `pool`, `sample_id`, and `embeddings`. A row that is in two pools of a
    selection is at distance 0. Of more than `most` rows, so many, drawn by a hash of their ids, are
    measured, each against all rows: time grows with `most` x rows. Of `most` 0 nothing comes.
    A worker holds the vectors of one task, and one group of files more at a time; where rows are
    drawn, a task of Spark holds `most` hashes.
    """
    if not most:
        return
    spark, lake = context.engines.spark, context.lake
    stored = context.pinned("embeddings").select("sample_id", "encoder", "vector")
    draw = F.xxhash64(F.lit("diversity"), "sample_id", "pool").alias("draw")
    of_rows = rows.select("selection", "sample_id", draw).join(stored, "sample_id")
    there = of_rows.groupBy("selection", "encoder").count().where("count > 1").collect()
    found = sorted((names.index(row["selection"]), row["encoder"], row["count"]) for row in there)
    if not found:
        return
    context.engines.ray()
    folder = lake.work_uri(context.run.run_id, "vectors")
    numbered = []
    for n, (place, encoder, count) in enumerate(found):
        of_place = of_rows.where(
            (F.col("selection") == names[place]) & (F.col("encoder") == encoder)
        )
        last = _last_draw(of_place, most) if count > most else _WHOLE
        numbered.append((names[place], encoder, n, min(count, most), last))
    columns = "selection string, encoder string, place int, wanted long, last long"
    places = spark.createDataFrame(numbered, columns)
    placed = of_rows.join(F.broadcast(places), ["selection", "encoder"])
    placed = placed.select("place", "vector", (F.col("draw") <= F.col("last")).alias("measured"))
    # The rows of a place in few files, but not in one task.
    writer = placed.hint("rebalance", "place").write.options(**WRITTEN).partitionBy("place")
    writer.parquet(lake.spark_uri(folder))
    ray_config = context.engines.ray_config
    with Workers(NearestDistances, [()], ray_config, "compare", "ray.cpus") as workers:
        for selection, encoder, place, wanted, _ in numbered:
            vectors = vectors_in(f"{folder}/place={place}")
            usable, distances = _distances(workers, vectors, wanted)
            if len(distances):
                mean = math.fsum(distances) / len(distances)
                yield Diversity(selection, encoder, usable, len(distances), mean)


def _last_draw(rows: DataFrame, count: int) -> int:
    """The greatest of the `count` least draws."""
    last = rows.orderBy("draw").limit(count).agg(F.max("draw")).first()
    assert last is not None
    return int(last[0])


def _distances(workers: Workers, vectors: VectorRows, wanted: int) -> tuple[int, Array]:
    """How many rows are usable, and the distances of those of them that are measured (about
    `wanted`) and have another one, in the order of the files."""

    def search(actor: Any, groups: list[Group]) -> ObjectRef[Any]:
        return actor.distances.remote(vectors, groups)  # type: ignore[no-any-return]

    tasks = 1 + wanted * vectors.width * 4 // TASK_BYTES
    shares = [groups for groups in vectors.shares(tasks) if groups]
    usable, parts = 0, [np.empty(0)]
    for _, (of_share, distances) in workers.in_order(shares, search):
        usable += of_share
        parts.append(distances)
    return usable, np.concatenate(parts)


class NearestDistances:
    """A Ray actor: distances of the measured rows of some groups to the nearest of all rows."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def distances(self, rows: VectorRows, groups: list[Group]) -> tuple[int, Array]:
        """How many rows of the groups are usable, and float64 [measured ones of them]; none where
        there is no other row."""
        usable = 0
        positions, vectors = [], []
        for group in groups:
            found, of_group, _ = rows.vectors(group)
            measured = rows.read(group, ["measured"])["measured"].to_numpy()[found - group.first]
            usable += len(found)
            positions.append(found[measured])
            vectors.append(of_group[measured])
        if not sum(map(len, positions)):
            return usable, np.empty(0)
        nearest = Nearest(np.concatenate(positions), np.concatenate(vectors), 1)
        for group in rows.groups:
            nearest.see(*rows.vectors(group)[:2])
        distances: Array = nearest.distances
        there: Array = distances[np.isfinite(distances)]
        return usable, there
