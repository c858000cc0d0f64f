"""Ray actors of the strategies by vectors: each reads its part of the rows from files."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tagsieve.engines.kmeans import Centroids
from tagsieve.engines.vector_rows import Bad, Group, VectorRows
from tagsieve.engines.vectors import Array
from tagsieve.selection.kcenter import Farthest, Shard
from tagsieve.selection.repr_filter import ReprFilter, Taken

if TYPE_CHECKING:
    from ray import ObjectRef

KEYS = ("pool", "sample_id")

BLOCK_ROWS = 16_384
"""Rows of a cluster that are compared at a time."""


@dataclass(frozen=True)
class Passed:
    """Rows of a group that the first `known` rows taken do not refuse, and its unusable ones."""

    positions: Array
    vectors: Array
    known: int
    bad: Bad


@dataclass(frozen=True)
class Deduped:
    """Of some clusters the rows `kept` (`pool`, `sample_id`, `score`); where that is asked, the
    `removed` ones (`pool`, `sample_id`, `nearest`: the kept row's sample id, `similarity`); and the
    unusable ones."""

    kept: pa.Table
    removed: pa.Table | None
    bad: list[Bad]


class _Worker:
    """What all have: the rows, and their number of threads."""

    def __init__(self, rows: VectorRows, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._rows = rows


class Refuser(_Worker):
    """The repr filter: which rows those taken so far refuse.

    `parts`: references to the vectors of the rows taken, in the order of taking.
    """

    def __init__(self, rows: VectorRows, tau: float, threads: int) -> None:
        super().__init__(rows, threads)
        self._taken, self._parts = Taken(tau), 0

    def passed(self, group: Group, parts: list[ObjectRef[Array]]) -> Passed:
        """What is left of a group."""
        import torch

        self._catch_up(parts)
        positions, vectors, bad = self._rows.vectors(group)
        with torch.inference_mode():
            left = self._taken.passed(self._taken.products.load(vectors))
        return Passed(positions[left], vectors[left], self._taken.count, bad)

    def nearest(
        self, group: Group, parts: list[ObjectRef[Array]], taken: Array, end: int
    ) -> pa.Table:
        """`pool`, `sample_id`, the `rank` of the most alike row taken before it, and their
        `similarity`, of a group's refused rows; `taken`: the positions of the rows taken, `end`:
        of the first row that was not decided."""
        self._catch_up(parts)
        positions, vectors, _ = self._rows.vectors(group)
        refused = ~np.isin(positions, taken) & (positions < end)
        positions, vectors = positions[refused], vectors[refused]
        ranks, similarities = self._taken.nearest(vectors, np.searchsorted(taken, positions))
        keys = self._rows.at(positions, KEYS)
        return keys.append_column("rank", pa.array(ranks)).append_column(
            "similarity", pa.array(similarities)
        )

    def _catch_up(self, parts: list[ObjectRef[Array]]) -> None:
        import ray

        for vectors in ray.get(parts[self._parts :]):
            self._taken.add(self._taken.products.load(vectors))
        self._parts = len(parts)


class Measurer(_Worker):
    """k-center: the distances of a share of the rows.

    Its vectors lie in a file, and in memory scaled to unit length.
    """

    def __init__(self, rows: VectorRows, groups: list[Group], threads: int) -> None:
        super().__init__(rows, threads)
        # Open for as long as the actor lives.
        self._file = tempfile.TemporaryFile(prefix="tagsieve-vectors-")  # noqa: SIM115
        found = []
        for group in groups:
            positions, vectors, bad = rows.vectors(group)
            vectors.tofile(self._file)
            found.append((positions, bad))
        self._file.flush()
        self._positions = np.concatenate([np.empty(0, dtype=np.int64), *(p for p, _ in found)])
        self._bad = [bad for _, bad in found]
        self._vectors: Array = np.empty((0, rows.width), dtype=np.float32)
        if len(self._positions):
            shape = (len(self._positions), rows.width)
            self._vectors = np.memmap(self._file, dtype=np.float32, mode="r+", shape=shape)
        self._shard = Shard(self._vectors, self._positions)
        self._parts = 0

    def usable(self) -> tuple[Array, list[Bad]]:
        """Positions of the rows, and the unusable ones."""
        return self._positions, self._bad

    def vector(self, position: int) -> Array:
        """The vector of a row of this share."""
        return np.array(self._vectors[np.searchsorted(self._positions, position)])

    def advance(self, parts: list[ObjectRef[tuple[Array, list[int]]]], count: int) -> Farthest:
        """The farthest rows; `parts`: references to the vectors and positions of all centres."""
        import ray

        new = ray.get(parts[self._parts :])
        self._parts = len(parts)
        centres = np.concatenate([vectors for vectors, _ in new])
        taken = [position for _, positions in new for position in positions]
        return self._shard.advance(centres, taken, count)


class Assigner(_Worker):
    """k-means: the nearest centroid of each row."""

    def __init__(self, rows: VectorRows, centroids: Array, threads: int) -> None:
        super().__init__(rows, threads)
        self._centroids = Centroids(centroids)

    def assign(self, group: Group) -> tuple[pa.Table, Bad]:
        """`sample_id`, `cluster` and `distance` of a group's usable rows, and the others."""
        positions, vectors, bad = self._rows.vectors(group)
        clusters, distances = self._centroids.assign(vectors)
        keys = self._rows.read(group, ["sample_id"]).take(pa.array(positions - group.first))
        table = keys.append_column("cluster", pa.array(clusters))
        return table.append_column("distance", pa.array(distances)), bad


class Deduper(_Worker):
    """SemDeDup: near-duplicates among the rows of a cluster, which lie best first."""

    def __init__(self, rows: VectorRows, threshold: float, explain: bool, threads: int) -> None:
        super().__init__(rows, threads)
        self._threshold, self._explain = threshold, explain

    def kept(self, bounds: Array) -> Deduped:
        """Deduplicate the clusters that lie between the positions `bounds`; holds their vectors."""
        positions, vectors, bad = self._between(bounds[0], bounds[-1])
        places = np.searchsorted(positions, bounds)
        kept, twins = [np.empty(0, dtype=np.int64)], []
        for start, stop in itertools.pairwise(places.tolist()):
            made = ReprFilter(self._threshold, stop - start)
            for first in range(start, stop, BLOCK_ROWS):
                block = vectors[first : min(first + BLOCK_ROWS, stop)]
                kept.append(first + made.decide(block))
            if self._explain:
                taken = np.concatenate(kept)
                taken = taken[taken >= start]
                removed = np.setdiff1d(np.arange(start, stop), taken)
                before = np.searchsorted(taken, removed)
                nearest, similarity = made.taken.nearest(vectors[removed], before)
                twins.append((positions[removed], positions[taken[nearest]], similarity))
        rows = self._rows.at(positions[np.concatenate(kept)], [*KEYS, "score"])
        return Deduped(rows, self._told(twins) if self._explain else None, bad)

    def _told(self, twins: list[tuple[Array, Array, Array]]) -> pa.Table:
        """The removed rows, from positions, their kept rows' positions, and similarities."""
        removed, nearest, similarity = (np.concatenate(part) for part in zip(*twins, strict=True))
        kept, places = np.unique(nearest, return_inverse=True)
        names = self._rows.at(kept, ["sample_id"])["sample_id"].take(pa.array(places))
        table = self._rows.at(removed, KEYS).append_column("nearest", names)
        return table.append_column("similarity", pa.array(similarity))

    def _between(self, start: int, stop: int) -> tuple[Array, Array, list[Bad]]:
        positions = [np.empty(0, dtype=np.int64)]
        vectors = [np.empty((0, self._rows.width), dtype=np.float32)]
        bad = []
        for group in self._rows.groups:
            if group.first + group.rows <= start or group.first >= stop:
                continue
            found, rows, unusable = self._rows.vectors(group)
            inside = (found >= start) & (found < stop)
            positions.append(found[inside])
            vectors.append(rows[inside])
            bad.append(unusable.between(start, stop))
        return np.concatenate(positions), np.concatenate(vectors), bad
