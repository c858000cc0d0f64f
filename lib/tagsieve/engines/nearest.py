"""The distances of vectors to the k-th nearest of many others, block by block, exact.

Products in low precision only find what might be near enough. The similarities that decide are
computed in float64 from the float32 vectors, so that the distances are the same bits whatever the
blocks, the precision of the products and the device (METHODS.md, section 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tagsieve.engines.vectors import (
    AT_ONCE,
    Array,
    Products,
    Vectors,
    narrow_dtype,
    on_device,
    products,
    similarities,
)

if TYPE_CHECKING:
    import torch

_ROUNDED = 1e-6
"""How far a bound in float32 may be off, and more."""


class Nearest:
    """The `k` greatest cosine similarities of some vectors to all that were `seen`, themselves not
    counted.

    Holds the vectors as they are (float32 [n, d], none zero), scaled to unit length in the
    precision of the products, and the similarities (float64 [n, k]). `positions`: what the vectors
    are called (int64 [n]). `dtype`: of the products; default: float32 on a CPU, float16 on a GPU.
    """

    def __init__(self, positions: Array, vectors: Array, k: int, dtype: str | None = None) -> None:
        self._products = Products(dtype or narrow_dtype())
        self._positions, self._vectors = positions, vectors
        self._units = self._products.units(vectors)
        self._best = np.full((len(vectors), k), -np.inf)

    def see(self, positions: Array, vectors: Array) -> None:
        """Compare with further vectors, each seen once."""
        import torch

        if not len(vectors):
            return
        with torch.inference_mode():
            seen = self._products.load(vectors)
            step = max(1, AT_ONCE[self._products.device] // len(vectors))
            for start in range(0, len(self._positions), step):
                self._compare(slice(start, start + step), positions, vectors, seen)

    @property
    def distances(self) -> Array:
        """1 - cosine similarity to the k-th nearest: float64 [n], inf where fewer were seen."""
        return np.maximum(1.0 - self._best[:, -1], 0.0)

    def _compare(self, part: slice, positions: Array, vectors: Array, seen: Vectors) -> None:
        """Compare some of the rows with others."""
        rough = products(self._units[part], seen.units).float()
        _, own, other = np.intersect1d(
            self._positions[part], positions, assume_unique=True, return_indices=True
        )
        rough[on_device(own), on_device(other)] = -np.inf
        # The best ones first: what they are alike rules out nearly all others.
        k = min(self._best.shape[1], rough.shape[1])
        close, places = rough.topk(k, dim=1)
        i, j = (close >= self._bounds(part)).nonzero(as_tuple=True)
        j = places[i, j]
        self._decide(part, vectors, i, j)
        rough[i, j] = -np.inf
        bounds = self._bounds(part)
        some = (rough.amax(dim=1) >= bounds[:, 0]).nonzero().ravel()
        if len(some):
            i, j = (rough[some] >= bounds[some]).nonzero(as_tuple=True)
            self._decide(part, vectors, some[i], j)

    def _bounds(self, part: slice) -> torch.Tensor:
        """Least products that may yet count, [n, 1] on the device; inf where no similarity can be
        greater."""
        import torch

        least = self._best[part, -1:]
        bounds = np.maximum(least, -2.0) - self._products.margin - _ROUNDED
        bounds[least >= 1.0] = np.inf
        return torch.from_numpy(bounds.astype(np.float32)).to(self._products.device)

    def _decide(self, part: slice, vectors: Array, i: torch.Tensor, j: torch.Tensor) -> None:
        """Take the exact similarities of pairs into account: rows `i` of a part, rows `j` of
        others."""
        if not len(i):
            return
        rows, others = i.cpu().numpy(), j.cpu().numpy()
        exact = similarities(self._vectors[part], vectors, rows, others)
        order = np.lexsort((-exact, rows))
        rows, exact = rows[order], exact[order]
        changed, first = np.unique(rows, return_index=True)
        rank = np.arange(len(rows)) - np.repeat(first, np.diff([*first, len(rows)]))
        best = self._best[part]
        k = best.shape[1]
        found = np.full((len(changed), k), -np.inf)
        kept = rank < k
        found[np.searchsorted(changed, rows[kept]), rank[kept]] = exact[kept]
        both = np.concatenate([best[changed], found], axis=1)
        best[changed] = -np.sort(-both, axis=1)[:, :k]
