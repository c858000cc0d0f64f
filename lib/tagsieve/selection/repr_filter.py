"""DEITA's repr filter (section 3.4): in score order, rows that are not too like a taken one.

Equal to the loop that takes row after row, for any block size, precision, thread count and device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tagsieve.engines.vectors import Array, Products, most_alike, similarities

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Decided:
    """What became of the first n rows of a block, all of it unless the filter was full before.

    `taken`: bool [n]. `nearest`: int64 [n], which taken row (by the order of taking) was most alike
    when the row was decided, of equals the first; -1 when none was taken yet. `similarity`: to it,
    float64 [n], NaN for none.
    """

    taken: Array
    nearest: Array
    similarity: Array


class ReprFilter:
    """Takes rows until there are `size`; a row is refused when its cosine similarity to any taken
    one is above `tau`.

    Holds the taken vectors, in float32 and in the precision of the products, and for a block of n
    rows n x (taken + n) products. `dtype`: of the products, as of `Products`.
    """

    def __init__(self, tau: float, size: int, dtype: str | None = None) -> None:
        self._tau, self._size = tau, size
        self._products = Products(dtype)
        self._vectors = np.empty((0, 0), dtype=np.float32)
        self._units: torch.Tensor | None = None
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether `size` rows are taken."""
        return self.count >= self._size

    def decide(self, vectors: Array) -> Decided:
        """Decide the next rows in score order; `vectors`: float32 [n, d], no zero vector."""
        import torch

        with torch.inference_mode():
            units = self._products.units(vectors)
            inside = (units @ units.T).float().cpu().numpy()
            before = inside[:, :0]
            if self._units is not None:
                before = (units @ self._units[: self.count].T).float().cpu().numpy()
            taken = self._taken(vectors, before, inside)
            places = np.flatnonzero(taken)[: self._size - self.count]
            ends = len(places) and self.count + len(places) == self._size
            rows = int(places[-1]) + 1 if ends else len(vectors)
            found = self._nearest(vectors, before[:rows], inside[:rows], places)
            self._keep(vectors[places], units[torch.from_numpy(places).to(units.device)])
        return Decided(taken[:rows], *found)

    def _taken(self, vectors: Array, before: Array, inside: Array) -> Array:
        """Which rows the loop would take, were there room for all."""
        tau, margin = self._tau, self._products.margin
        refused: Array = np.any(before > tau + margin, axis=1)
        i, j = np.nonzero((before > tau - margin) & ~refused[:, None])
        refused[i[similarities(vectors, self._vectors, i, j) > tau]] = True
        left = np.flatnonzero(~refused)
        i, j = np.nonzero(np.triu(inside[np.ix_(left, left)] > tau - margin, 1))
        i, j = left[i], left[j]
        alike = similarities(vectors, vectors, i, j) > tau
        taken: Array = ~refused
        # In the order of i: what becomes of a row is known before it can refuse another.
        for one, other in zip(i[alike].tolist(), j[alike].tolist(), strict=True):
            if taken[one]:
                taken[other] = False
        return taken

    def _nearest(
        self, vectors: Array, before: Array, inside: Array, places: Array
    ) -> tuple[Array, Array]:
        """The most alike taken row of each row, and how alike it is."""
        earlier = places[None, :] < np.arange(len(before))[:, None]
        rough = np.concatenate([before, np.where(earlier, inside[:, places], -np.inf)], axis=1)
        nearest = np.full(len(rough), -1)
        similarity = np.full(len(rough), np.nan)
        if not rough.shape[1]:
            return nearest, similarity
        low = rough.max(axis=1, keepdims=True) - 2 * self._products.margin
        i, j = np.nonzero((rough >= low) & np.isfinite(rough))
        there = np.concatenate([self._vectors[: self.count].reshape(-1, vectors.shape[1]),
                                vectors[places]])  # fmt: skip
        rows, places, exact = most_alike(i, j, similarities(vectors, there, i, j))
        nearest[rows], similarity[rows] = places, exact
        return nearest, similarity

    def _keep(self, vectors: Array, units: torch.Tensor) -> None:
        need = self.count + len(vectors)
        if self._units is None or need > len(self._vectors):
            room = max(need, min(self._size, 2 * len(self._vectors)), 1)
            grown = np.empty((room, vectors.shape[1]), dtype=np.float32)
            grown_units = units.new_empty((room, units.shape[1]))
            if self._units is not None:
                grown[: self.count] = self._vectors[: self.count]
                grown_units[: self.count] = self._units[: self.count]
            self._vectors, self._units = grown, grown_units
        self._vectors[self.count : need] = vectors
        self._units[self.count : need] = units
        self.count = need
