"""Greedy k-center (Sener and Savarese 2018, algorithm 1): the farthest row from those taken, again
and again.

Equal to the loop that measures all rows after each centre, for any number of shards, precision and
device. That loop reads all rows once a centre; this one once for as many centres as can be told
apart: after a pass over all rows, the farthest ones are candidates, and whichever of them is still
farther than the others were after the pass is the next centre.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tagsieve.engines.vectors import ROUNDING, Array, Products, device, on_device, products

if TYPE_CHECKING:
    import torch

CANDIDATES = 1024
"""Rows that each shard gives after the first pass; more when they bring few centres."""

MOST_CANDIDATES = 16_384
"""Where more candidates would cost more than another pass, unless no centre is found without."""

_PICKS_UNTIL_PRUNED = 16

FEW_CENTRES = 24
"""A pass that brings fewer centres calls for more candidates."""

_AT_ONCE = {"cpu": 2_000_000, "cuda": 512_000_000}
"""Products made at a time: what the caches hold; 2 GB of float32 on a GPU."""

_FLOAT32 = 4e-6
"""How far a squared norm in float32 may be off, for its size, and more."""


@dataclass(frozen=True)
class Farthest:
    """A shard's farthest rows: their `numbers` (int64 [t]) and `vectors` (float32 [t, d]), and a
    bound on the squared distance of every other row that is not taken (-inf for none)."""

    numbers: Array
    vectors: Array
    rest: float


class Shard:
    """A part of the rows, with their `numbers` (int64 [n], ascending; default: from 0 on).

    Holds the vectors as they are given (float32 [n, d]; they may lie on disk), scaled to unit
    length in the precision of the products, and 8 bytes a row. `dtype`: of the products; default:
    float32 on a CPU, float16 on a GPU.
    """

    def __init__(
        self,
        vectors: Array | torch.Tensor,
        numbers: Array | None = None,
        dtype: str | None = None,
    ) -> None:
        import torch

        if isinstance(vectors, np.ndarray):
            vectors = torch.from_numpy(vectors)
        self._vectors = vectors
        self._numbers = np.arange(len(vectors)) if numbers is None else numbers
        self._products = Products(dtype or ("float16" if device() == "cuda" else "float32"))
        where = {"device": self._products.device}
        self._units = torch.empty(tuple(vectors.shape), dtype=self._products.dtype, **where)
        self._norms = torch.empty(len(vectors), **where)
        self._bounds = torch.full((len(vectors),), torch.inf, **where)
        step = max(1, _AT_ONCE["cuda"] // vectors.shape[1])
        for start in range(0, len(vectors), step):
            rows = self._products.load(vectors[start : start + step])
            self._units[start : start + step] = rows.units
            self._norms[start : start + step] = torch.linalg.vector_norm(rows.full, dim=1)

    def advance(self, centres: Array, taken: Sequence[int], count: int) -> Farthest:
        """Measure the distances to new `centres` (float32 [c, d]), of which `taken` are rows, by
        their numbers; gives the `count` farthest rows."""
        import torch

        with torch.inference_mode():
            self._measure(centres)
            own = np.flatnonzero(np.isin(self._numbers, np.array(taken, dtype=np.int64)))
            self._bounds[on_device(own)] = -torch.inf
            values, rows = self._bounds.topk(min(count + 1, len(self._bounds)))
            values = values.cpu().double()
            rows = rows[: min(count, int((values > -torch.inf).sum()))]
            rest = float(values[count]) if len(values) > count else -np.inf
            # By torch, which gathers with all threads.
            vectors = self._vectors[rows.to(self._vectors.device)].cpu().numpy()
            return Farthest(self._numbers[rows.cpu().numpy()], vectors, rest)

    def _measure(self, centres: Array) -> None:
        """Lower the bounds on the squared distance of each row to its nearest centre."""
        import torch

        if not len(centres):
            return
        full = on_device(centres)
        longest = torch.linalg.vector_norm(full, dim=1).max()
        # No product of a row of `_units` with one of these is above 1, so that none overflows.
        scaled = (full / longest).to(self._units.dtype)
        squares = (full * full).sum(dim=1) * (1 + _FLOAT32)
        step = max(1, _AT_ONCE[self._products.device] // len(centres))
        for start in range(0, len(self._bounds), step):
            part = slice(start, start + step)
            scale = self._norms[part] * longest
            far = products(self._units[part], scaled).float()
            far.mul_(-2 * scale[:, None]).add_(squares)
            near = far.amin(dim=1) + 2 * self._products.margin * scale
            near += self._norms[part] ** 2 * (1 + _FLOAT32)
            self._bounds[part] = torch.minimum(self._bounds[part], near)


Advance = Callable[[Array, Sequence[int], int], Sequence[Farthest]]
"""`Shard.advance` of all shards."""


def k_center(
    advance: Advance, first: int, vector: Array, size: int
) -> Iterator[list[tuple[int, float]]]:
    """The numbers of `size` rows, in the order of taking, each with its distance to the nearest row
    taken before it (NaN for the first): a list for each pass.

    `first`: the row to begin with, `vector`: its (float32 [d]). Of equally far rows the first by
    number is taken. Fewer than `size` when there are no more. Holds the centres and the candidates
    in float64.
    """
    yield [(first, np.nan)]
    centres = vector[None]
    fresh, taken, count = centres, [first], CANDIDATES
    while len(centres) < size:
        found = [part for part in advance(fresh, taken, count) if len(part.numbers)]
        if not found:
            return
        parts = found[0] if len(found) == 1 else _joined(found)
        race = _Race(parts.numbers, parts.vectors, centres, parts.rest)
        picked = race.run(size - len(centres))
        taken = [number for number, _, _ in picked]
        fresh = np.array([row for _, _, row in picked], dtype=np.float32).reshape(-1, len(vector))
        centres = np.concatenate([centres, fresh])
        if not picked or (len(picked) < FEW_CENTRES and count < MOST_CANDIDATES):
            count *= 2
        if picked:
            yield [(number, distance) for number, distance, _ in picked]


def _joined(parts: Sequence[Farthest]) -> Farthest:
    return Farthest(
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        max(part.rest for part in parts),
    )


class _Race:
    """Candidates for the next centres, with their squared distances in float64.

    `rest`: a bound on the squared distance of rows that are no candidates.
    """

    def __init__(self, numbers: Array, vectors: Array, centres: Array, rest: float) -> None:
        import torch

        self._numbers, self._vectors = numbers, vectors
        self._centres, self._rest = [*centres], rest
        # What follows is of those that can still win, which stand at these places.
        self._places = np.arange(len(numbers))
        self._wide = on_device(vectors).double()
        self._squares = (self._wide * self._wide).sum(dim=1)
        held = on_device(centres).double()
        squares = (held * held).sum(dim=1)
        self._rounding = 8 * ROUNDING * float(max(self._squares.max(), squares.max()))
        self._nearest = torch.full_like(self._squares, torch.inf)
        step = max(1, _AT_ONCE["cpu"] // len(numbers))
        for start in range(0, len(held), step):
            part = slice(start, start + step)
            inner = self._wide @ held[part].T
            near = self._squares + (squares[part] - 2 * inner).amin(dim=1)
            self._nearest = torch.minimum(self._nearest, near)

    def run(self, most: int) -> list[tuple[int, float, Array]]:
        """The next centres, as long as they are farther than the rest: number, distance and
        vector."""
        import torch

        picked: list[tuple[int, float, Array]] = []
        while len(picked) < most:
            if len(picked) % _PICKS_UNTIL_PRUNED == 0:
                self._prune()
            best = float(self._nearest.max()) if len(self._nearest) else -np.inf
            if best == -np.inf or best - self._rounding <= self._rest:
                break
            close = (self._nearest >= best - self._rounding).nonzero().ravel().cpu().numpy()
            one = int(close[0]) if len(close) == 1 else self._farthest(close)
            place = self._places[one]
            row = self._vectors[place]
            picked.append((int(self._numbers[place]), max(best, 0.0) ** 0.5, row))
            self._centres.append(row)
            near = self._squares + self._squares[one] - 2 * (self._wide @ self._wide[one])
            self._nearest = torch.minimum(self._nearest, near)
            self._nearest[one] = -torch.inf
        return picked

    def _prune(self) -> None:
        """Leave out those that cannot win any more."""
        keep = (self._nearest - self._rounding > self._rest).nonzero().ravel()
        if len(keep) < len(self._places):
            self._places = self._places[keep.cpu().numpy()]
            self._wide, self._squares = self._wide[keep], self._squares[keep]
            self._nearest = self._nearest[keep]

    def _farthest(self, close: Array) -> int:
        """Of candidates that float64 products do not tell apart, the farthest, and of equals the
        first by number."""
        centres = np.array(self._centres, dtype=np.float64)
        found = []
        for one in close.tolist():
            place = self._places[one]
            apart = centres - self._vectors[place].astype(np.float64)
            found.append((-float((apart * apart).sum(axis=1).min()), self._numbers[place], one))
        return int(min(found)[2])
