"""Scores by neighbours: how far a conversation's vector is from its k-th nearest other one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import failure
from tagsieve.engines.nearest import Nearest
from tagsieve.engines.vector_rows import Group, VectorRows, write_vectors
from tagsieve.engines.workers import Workers
from tagsieve.lake import WHOLE
from tagsieve.scoring.rows import scored_rows
from tagsieve.scoring.work import contents

if TYPE_CHECKING:
    from ray import ObjectRef

TOO_FEW = "too_few_vectors"
"""Conversations of a set that has no k other vectors: rejected, stored nowhere."""

NO_VECTOR = "no_vector"
"""Conversations without a vector of the encoder: rejected, stored nowhere; when they have one, the
set is another."""

TASK_BYTES = 64 * 2**20
"""Vectors of one task: all others are read once for each of them."""

_FAULTS = {
    "vector_width": "the vector has another width than that of most",
    "nan_vector": "the vector has numbers that are not finite",
    "zero_vector": "the vector is zero",
}


def vectors_of(context: Context, encoder: str) -> DataFrame:
    """`sample_id` and `vector` of the conversations that have one of an encoder, as this step found
    them; as they are now where it pins none."""
    return (
        context.pinned("embeddings")
        .where(F.col("encoder") == encoder)
        .select("sample_id", "vector")
        .join(contents(context).select("sample_id"), "sample_id", "left_semi")
    )


def vector_set(context: Context, encoder: str) -> str:
    """The encoder and a digest of the set of conversations that have a vector of it, in no order:
    what decides who is whose neighbour."""
    ids = vectors_of(context, encoder).select(F.xxhash64("sample_id").alias("hash"))
    total = F.sum(F.col("hash").cast("decimal(20,0)"))
    found = ids.agg(F.count("*"), F.bit_xor("hash"), total).first()
    assert found is not None
    return " ".join([encoder, *map(str, found)])


def stored_vectors(context: Context, encoder: str, lacking: DataFrame, name: str) -> VectorRows:
    """All vectors of an encoder in files with `sample_id` and `wanted`: whether it is in
    `lacking`."""
    wanted = lacking.select("sample_id", F.lit(True).alias("wanted"))
    rows = vectors_of(context, encoder).join(wanted, "sample_id", "left")
    rows = rows.fillna(value=False, subset=["wanted"])
    return write_vectors(context, rows, name, ("sample_id", "wanted"))


def neighbour_rows(
    context: Context, rows: VectorRows, scorer: str, k: int, workers: int
) -> Iterator[pa.Table]:
    """The rows of `scores` and `failure` of the wanted ones of `rows` (`sample_id`, `wanted`,
    `vector`), by Ray actors. Counts what has no k others as rejected."""
    run = context.run
    tasks = max(workers, rows.count * rows.width * 4 // TASK_BYTES)
    shares = [groups for groups in rows.shares(tasks) if groups]
    arguments: list[tuple[Any, ...]] = [(rows, k)] * min(workers, len(shares))
    if not arguments:
        return

    def search(actor: Any, groups: list[Group]) -> ObjectRef[Any]:
        return actor.distances.remote(groups, scorer, run.run_id)  # type: ignore[no-any-return]

    ray_config = context.engines.ray_config
    with Workers(NeighbourSearch, arguments, ray_config, "score", "score.replicas") as searching:
        for _, (scored, alone) in searching.in_order(shares, search):
            if alone:
                run.rejected[TOO_FEW] += alone
            yield scored


class NeighbourSearch:
    """A Ray actor: distances of the wanted rows of some groups to their k-th nearest of all rows.

    Holds the wanted vectors of the groups, and one group more at a time.
    """

    def __init__(self, rows: VectorRows, k: int, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._rows, self._k = rows, k

    def distances(self, groups: list[Group], scorer: str, run_id: str) -> tuple[pa.Table, int]:
        """The rows of `scores` and `failure` of the wanted rows of groups, and how many more have
        no k others."""
        ids: list[str] = []
        positions, vectors, failed = [], [], []
        for group in groups:
            table = self._rows.read(group, ["sample_id", "wanted"])
            wanted = table["wanted"].to_numpy()
            if not wanted.any():
                continue
            names = table["sample_id"].to_pylist()
            found, of_group, bad = self._rows.vectors(group)
            chosen = wanted[found - group.first]
            positions.append(found[chosen])
            vectors.append(of_group[chosen])
            ids += [names[place] for place in positions[-1] - group.first]
            for place, reason in zip(bad.positions - group.first, bad.reasons, strict=True):
                if wanted[place]:
                    failed.append(_failed(names[place], scorer, reason))
        scored = []
        if ids:
            nearest = Nearest(np.concatenate(positions), np.concatenate(vectors), self._k)
            for group in self._rows.groups:
                nearest.see(*self._rows.vectors(group)[:2])
            scored = [
                {"sample_id": sample_id, "turn": WHOLE, "scorer": scorer, "value": distance}
                for sample_id, distance in zip(ids, nearest.distances.tolist(), strict=True)
                if distance < np.inf
            ]
        return scored_rows(run_id, scored + failed), len(ids) - len(scored)


def _failed(sample_id: str, scorer: str, reason: str) -> dict[str, Any]:
    told = failure(scorer, f"{sample_id} {WHOLE}", reason, _FAULTS[reason], "")
    return {"sample_id": sample_id, "turn": WHOLE, "scorer": scorer, "failure": told}
