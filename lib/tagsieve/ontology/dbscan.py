"""DBSCAN and nearest rows by exact range search: blocks of the upper triangle, never N x N in
memory.

Equal to scikit-learn's DBSCAN on the same cosine distances (METHODS.md, sections 1 and 7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tagsieve.engines.encoders import cpu_dtype

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, np.dtype[Any]]
Pairs = tuple[Array, Array]
"""Row numbers i < j of near vectors, two int32 arrays of one length."""

NOISE = -1

_DECIDED_AT_ONCE = 50_000
"""Pairs whose exact distance is computed at a time: some 300 MB at 384 dimensions."""

_MARGIN = {"float32": 1e-4, "bfloat16": 1e-2}
"""How far a product of unit vectors in this precision may be off: two roundings of each factor,
one of the sum."""


class RangeSearch:
    """All pairs of rows within a cosine distance of `eps`, block by block.

    A low-precision product of two blocks finds the candidates; each of them is then decided in
    float64 from the float32 vectors, row by row, so the pairs depend neither on the block size nor
    on threads or device. On a GPU if there is one. `vectors`: float32 [n, d], no zero vector.
    """

    def __init__(self, vectors: Array, eps: float, block: int = 4096) -> None:
        import torch

        self._vectors, self._eps, self._block = vectors, eps, block
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = "bfloat16" if self._device == "cuda" else cpu_dtype()
        self._low = 1.0 - eps - _MARGIN[dtype]
        self._dtype = getattr(torch, dtype)

    @property
    def blocks(self) -> int:
        """How many blocks of rows there are."""
        return -(-len(self._vectors) // self._block)

    def pairs_of(self, block: int) -> Pairs:
        """The pairs whose first row lies in a block."""
        import torch

        start = block * self._block
        rows = self._units(start)
        found: list[Pairs] = []
        with torch.inference_mode():
            for other in range(start, len(self._vectors), self._block):
                columns = rows if other == start else self._units(other)
                near = (rows @ columns.T) >= self._low
                if other == start:
                    near = near.triu_(1)
                i, j = (part.cpu().numpy() for part in near.nonzero(as_tuple=True))
                found.append(self._decided(i + start, j + other))
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))  # type: ignore[return-value]

    def _units(self, start: int) -> torch.Tensor:
        import torch

        part = torch.from_numpy(self._vectors[start : start + self._block]).to(self._device)
        return torch.nn.functional.normalize(part, dim=1).to(self._dtype)

    def _decided(self, i: Array, j: Array) -> Pairs:
        keep = np.empty(len(i), dtype=bool)
        for start in range(0, len(i), _DECIDED_AT_ONCE):
            part = slice(start, start + _DECIDED_AT_ONCE)
            keep[part] = distances(self._vectors[i[part]], self._vectors[j[part]]) <= self._eps
        return i[keep].astype(np.int32), j[keep].astype(np.int32)


def nearest(known: Array, new: Array, eps: float, block: int = 4096) -> Array:
    """For each row of `new` the row of `known` that is nearest within `eps`, int64 [len(new)]; -1
    where none is. Of equally near ones the first."""
    search = RangeSearch(np.concatenate([new, known]), eps, block)
    found = np.full(len(new), -1)
    for number in range(-(-len(new) // block)):
        i, j = search.pairs_of(number)
        across = (i < len(new)) & (j >= len(new))
        i, j = i[across], j[across] - len(new)
        order = np.lexsort((j, distances(new[i], known[j]), i))
        i, first = np.unique(i[order], return_index=True)
        found[i] = j[order][first]
    return found


def distances(left: Array, right: Array) -> Array:
    """Cosine distances of rows, in float64 and in one fixed order of summation: [n, d] twice ->
    [n]."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.asarray(1.0 - (a * b).sum(axis=1) / norms)


def dbscan(count: int, pairs: Callable[[], Iterable[Pairs]], min_samples: int) -> Array:
    """Cluster labels of `count` rows, int64 [count], `NOISE` where a row is in no cluster.

    `pairs` gives all near pairs, block by block, as often as it is called (three times). A row is
    a core point when it has `min_samples` rows within eps, itself among them. Clusters are
    numbered by their first core point; a border point joins the least of the clusters that reach
    it. Memory grows with `count` and the largest block.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    degree = np.ones(count, dtype=np.int64)
    for i, j in pairs():
        degree += np.bincount(i, minlength=count) + np.bincount(j, minlength=count)
    core = degree >= min_samples
    component = np.arange(count)
    for i, j in pairs():
        both = core[i] & core[j]
        edges = (component[i[both]], component[j[both]])
        graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(count, count))
        component = connected_components(graph, directed=False)[1][component]
    # A component has the number of its first core point's place among those of all components.
    first = np.full(count, count)
    np.minimum.at(first, component[core], np.flatnonzero(core))
    ranks = np.searchsorted(np.unique(first[component[core]]), first)
    labels = np.full(count, count)
    labels[core] = ranks[component[core]]
    for i, j in pairs():
        for border, near in ((i, j), (j, i)):
            reached = ~core[border] & core[near]
            np.minimum.at(labels, border[reached], labels[near[reached]])
    return np.where(labels == count, NOISE, labels)
