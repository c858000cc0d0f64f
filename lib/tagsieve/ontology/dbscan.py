"""DBSCAN and nearest rows by exact range search: blocks of the upper triangle, never N x N in
memory.

Equal to scikit-learn's DBSCAN on the same cosine distances (METHODS.md, sections 1 and 7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tagsieve.engines.vectors import Array, Products, most_alike, products, similarities

Pairs = tuple[Array, Array]
"""Row numbers i < j of near vectors, two int32 arrays of one length."""

NOISE = -1


class RangeSearch:
    """All pairs of rows within a cosine distance of `eps`, block by block.

    The pairs depend neither on the block size nor on threads or device. `vectors`: float32 [n, d],
    no zero vector.
    """

    def __init__(self, vectors: Array, eps: float, block: int = 4096) -> None:
        self._vectors, self._eps, self._block = vectors, eps, block
        self._products = Products()
        self._low = 1.0 - eps - self._products.margin

    @property
    def blocks(self) -> int:
        """How many blocks of rows there are."""
        return -(-len(self._vectors) // self._block)

    def pairs_of(self, block: int) -> Pairs:
        """The pairs whose first row lies in a block."""
        import torch

        def units(start: int) -> torch.Tensor:
            return self._products.units(self._vectors[start : start + self._block])

        start = block * self._block
        rows = units(start)
        found: list[Pairs] = []
        with torch.inference_mode():
            for other in range(start, len(self._vectors), self._block):
                columns = rows if other == start else units(other)
                near = products(rows, columns) >= self._low
                if other == start:
                    near = near.triu_(1)
                i, j = (part.cpu().numpy() for part in near.nonzero(as_tuple=True))
                i, j = i + start, j + other
                keep = distances(self._vectors, i, j) <= self._eps
                found.append((i[keep].astype(np.int32), j[keep].astype(np.int32)))
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def nearest(known: Array, new: Array, eps: float, block: int = 4096) -> Array:
    """For each row of `new` the row of `known` that is nearest within `eps`, int64 [len(new)]; -1
    where none is. Of equally near ones the first."""
    both = np.concatenate([new, known])
    search = RangeSearch(both, eps, block)
    found = np.full(len(new), -1)
    for number in range(-(-len(new) // block)):
        i, j = search.pairs_of(number)
        across = (i < len(new)) & (j >= len(new))
        i, j = i[across], j[across]
        rows, places, _ = most_alike(i, j, similarities(both, both, i, j))
        found[rows] = places - len(new)
    return found


def distances(vectors: Array, i: Array, j: Array) -> Array:
    """Cosine distances of the rows `i` with the rows `j`, float64 [len(i)]."""
    return 1.0 - similarities(vectors, vectors, i, j)


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
