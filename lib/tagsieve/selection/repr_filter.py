"""DEITA's repr filter (section 3.4): in score order, rows that are not too like a taken one.

Equal to the loop that takes row after row, for any block size, precision, thread count and device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tagsieve.engines.vectors import (
    ALIGNED,
    AT_ONCE,
    Array,
    Products,
    Vectors,
    above,
    most_alike,
    on_device,
    products,
    similarities,
)

if TYPE_CHECKING:
    import torch

CHUNK = {"cpu": 2048, "cuda": 8192}
"""Rows compared with each other at a time: each with each of them, whatever the block's size."""


class Taken:
    """The rows taken so far, in the order of taking.

    Holds their vectors in float32 and in the precision of the products. A row is refused when its
    cosine similarity to any of them is above `tau`. `dtype`: of the products, as of `Products`.
    """

    def __init__(self, tau: float, dtype: str | None = None) -> None:
        self.tau = tau
        self.products = Products(dtype)
        self._room: Vectors | None = None
        self.count = 0

    def vectors(self, start: int = 0) -> Vectors:
        """The rows taken, from the `start`th on; there must be one."""
        assert self._room is not None
        return self._room[start : self.count]

    def add(self, rows: Vectors) -> None:
        """Take rows."""
        need = self.count + len(rows)
        if self._room is None or need > len(self._room):
            held = 0 if self._room is None else len(self._room)
            grown = Vectors(*(part.new_empty((max(need, 2 * held), part.shape[1]))
                              for part in (rows.full, rows.units)))  # fmt: skip
            if self._room is not None:
                grown.full[: self.count] = self._room.full[: self.count]
                grown.units[: self.count] = self._room.units[: self.count]
            self._room = grown
        self._room.full[self.count : need] = rows.full
        self._room.units[self.count : need] = rows.units
        self.count = need

    def passed(self, rows: Vectors, start: int = 0) -> Array:
        """Which of `rows` none of those taken from the `start`th on refuses: their numbers.

        Those taken are looked at piece by piece, so that memory does not grow with their products.
        """
        import torch

        refused = torch.zeros(len(rows), dtype=torch.bool, device=self.products.device)
        for piece in self._pieces(len(rows), start, self.count):
            self._refuse(rows, self.vectors()[piece], refused)
        numbers: Array = (~refused).nonzero().ravel().cpu().numpy()
        return numbers

    def _refuse(self, rows: Vectors, taken: Vectors, refused: torch.Tensor) -> None:
        """Set `refused` (bool [len(rows)]) where any of `taken` refuses the row."""
        rough = products(rows.units, taken.units)
        best = rough.amax(dim=1)
        low, high = self.tau - self.products.margin, self.tau + self.products.margin
        refused |= best > high
        unsure = ((best > low) & ~refused).nonzero().ravel()
        if len(unsure):
            i, j = (rough[unsure] > low).nonzero(as_tuple=True)
            i = unsure[i]
            refused[i[above(rows, taken, i, j, self.tau)]] = True

    def alike(self, rows: Vectors) -> tuple[Array, Array]:
        """The pairs `i` < `j` of rows that refuse each other, in the order of `i`."""
        import torch

        rough = products(rows.units, rows.units)
        low, high = self.tau - self.products.margin, self.tau + self.products.margin
        # Most rows are like none: those are left out before any pair is looked at.
        rough.diagonal().fill_(-torch.inf)
        some = (rough.amax(dim=1) > low).nonzero().ravel()
        i, j = (rough[some][:, some] > low).triu_(1).nonzero(as_tuple=True)
        i, j = some[i], some[j]
        unsure = (rough[i, j] <= high).nonzero().ravel()
        found = torch.ones_like(i, dtype=torch.bool)
        found[unsure] = above(rows, rows, i[unsure], j[unsure], self.tau)
        return i[found].cpu().numpy(), j[found].cpu().numpy()

    def nearest(self, vectors: Array, before: Array) -> tuple[Array, Array]:
        """The most alike of the first `before[n]` rows taken for each of n vectors (float32
        [n, d]): which one (int64 [n], of equals the first, -1 for none), and the similarity
        (float64 [n], NaN for none)."""
        import torch

        nearest = np.full(len(vectors), -1)
        similarity = np.full(len(vectors), np.nan)
        if not self.count:
            return nearest, similarity
        fine = Products("float32")
        held = self.vectors().full
        taken = fine.load(held)
        host: Array = held.cpu().numpy()
        with torch.inference_mode():
            step = CHUNK[fine.device]
            for start in range(0, len(vectors), step):
                rows, earlier = vectors[start : start + step], before[start : start + step]
                most = int(earlier.max())
                if not most:
                    continue
                units, before_row = fine.units(rows), on_device(earlier)[:, None]
                best = torch.full((len(rows), 1), -torch.inf, device=fine.device)
                found = []
                for piece in self._pieces(len(rows), 0, most):
                    rough = products(units, taken.units[piece])
                    ranks = torch.arange(piece.start, piece.stop, device=fine.device)
                    later = ranks[None] >= before_row
                    rough = rough.masked_fill(later, -torch.inf)
                    best = torch.maximum(best, rough.amax(dim=1, keepdim=True))
                    close = (rough >= best - 2 * fine.margin) & ~later
                    i, j = (part.cpu().numpy() for part in close.nonzero(as_tuple=True))
                    j += piece.start
                    found.append(most_alike(i, j, similarities(rows, host, i, j)))
                i, j, exact = (np.concatenate(column) for column in zip(*found, strict=True))
                numbers, places, exact = most_alike(i, j, exact)
                nearest[start + numbers], similarity[start + numbers] = places, exact
        return nearest, similarity

    def _pieces(self, count: int, start: int, stop: int) -> Iterator[slice]:
        """The `start`th to the `stop`th row taken in pieces, each compared with `count` rows at a
        time."""
        step = max(1, AT_ONCE[self.products.device] // max(1, count))
        if step > ALIGNED:
            step -= step % ALIGNED
        for first in range(start, stop, step):
            yield slice(first, min(first + step, stop))


class ReprFilter:
    """Takes rows in score order until there are `size`, none too like one that it took before.

    Memory: the rows taken, the block, and the products that are made at a time.
    """

    def __init__(self, tau: float, size: int, dtype: str | None = None) -> None:
        self.taken = Taken(tau, dtype)
        self._size = size

    @property
    def full(self) -> bool:
        """Whether `size` rows are taken."""
        return self.taken.count >= self._size

    def decide(self, vectors: Array | torch.Tensor, known: int = 0) -> Array:
        """Decide the next rows in score order; gives the numbers of those taken.

        `vectors`: float32 [n, d], no zero vector; the first `known` rows taken are known not to
        refuse any of them.
        """
        import torch

        with torch.inference_mode():
            block = self.taken.products.load(vectors)
            start = self.taken.count
            left = self.taken.passed(block, known)
            taken: list[Array] = []
            step = CHUNK[self.taken.products.device]
            for first in range(0, len(left), step):
                if self.full:
                    break
                numbers = left[first : first + step]
                rows = block[numbers]
                passed = self.taken.passed(rows, start)
                if not len(passed):
                    continue
                chosen = _first_come(len(passed), *self.taken.alike(rows[passed]))
                chosen = passed[chosen[: self._size - self.taken.count]]
                self.taken.add(rows[chosen])
                taken.append(numbers[chosen])
        return np.concatenate([np.empty(0, dtype=np.int64), *taken])


def _first_come(count: int, i: Array, j: Array) -> Array:
    """Of `count` rows those that no earlier one of them refuses, itself not refused; pairs `i` <
    `j` in the order of `i` refuse each other."""
    refused = np.zeros(count, dtype=bool)
    starts = np.searchsorted(i, np.arange(count + 1))
    for row in np.unique(i).tolist():
        if not refused[row]:
            refused[j[starts[row] : starts[row + 1]]] = True
    return np.flatnonzero(~refused)
