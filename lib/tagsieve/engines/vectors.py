"""Cosine similarities and distances that do not depend on who computes them (METHODS.md, section
7).

Products of blocks in low precision, on a GPU if there is one, only find what might matter. What
might is decided in float64 from the float32 vectors, and what float64 leaves within rounding of a
bound or of another row is decided on the host, in one fixed order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tagsieve.engines.encoders import cpu_dtype

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, np.dtype[Any]]

MARGIN = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1e-2}
"""How far a product of unit vectors in this precision may be off: two roundings of each factor,
one of the sum."""

AT_ONCE = {"cpu": 4_000_000, "cuda": 128_000_000}
"""Float32 products of a search for neighbours that are made at a time, by device: 16 MB on a CPU,
512 MB on a GPU."""

ROUNDING = 1e-12
"""How far two ways to sum up a float64 product of unit vectors may be apart, and more."""

ALIGNED = 64
"""A GPU takes seven times as long for products whose number of columns is no multiple of 8, a CPU
up to 1.4 times as long."""

_DECIDED_AT_ONCE = 20_000_000
"""Numbers gathered at a time for exact similarities: 320 MB."""


@cache
def device() -> str:
    """Where products are computed; torch takes its time to say so."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def on_device(array: Array) -> torch.Tensor:
    """An array where products are computed."""
    import torch

    # torch does not like what it could write to and must not, such as Ray's objects.
    return torch.from_numpy(np.require(array, requirements="W")).to(device())


@dataclass(frozen=True)
class Vectors:
    """Rows on the device of the products: as stored (`full`, float32 [n, d]) and scaled to unit
    length in the precision of the products (`units`)."""

    full: torch.Tensor
    units: torch.Tensor

    def __len__(self) -> int:
        return len(self.full)

    def __getitem__(self, rows: slice | Array) -> Vectors:
        """Some of the rows."""
        if not isinstance(rows, slice):
            places = on_device(rows)
            return Vectors(self.full[places], self.units[places])
        return Vectors(self.full[rows], self.units[rows])

    def host(self, rows: Array) -> Array:
        """Some of the rows as they are stored, float32, in the host's memory."""
        found: Array = self.full[on_device(rows)].cpu().numpy()
        return found


class Products:
    """Products of unit vectors in low precision, and how far they may be off (`margin`).

    `dtype`: of the products; default: bfloat16 on a GPU and on a CPU that has it, else float32.
    """

    def __init__(self, dtype: str | None = None) -> None:
        import torch

        self.device = device()
        if self.device == "cuda":
            # Sums cut into pieces that are added up in bfloat16 would not keep the margin.
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        name = dtype or ("bfloat16" if self.device == "cuda" else cpu_dtype())
        self.margin = MARGIN[name]
        self.dtype: torch.dtype = getattr(torch, name)

    def load(self, vectors: Array | torch.Tensor) -> Vectors:
        """Vectors (float32 [n, d], none zero) on the device."""
        import torch

        full = on_device(vectors) if isinstance(vectors, np.ndarray) else vectors.to(self.device)
        scale = 1 / torch.linalg.vector_norm(full, dim=1, keepdim=True)
        units = torch.empty_like(full, dtype=self.dtype)
        return Vectors(full, torch.mul(full, scale, out=units))

    def units(self, vectors: Array) -> torch.Tensor:
        """Vectors (float32 [n, d], none zero) scaled to unit length, on the device."""
        return self.load(vectors).units


def narrow_dtype() -> str:
    """The precision of products with the least margin that is fast on the device: float32 on a CPU,
    float16 on a GPU."""
    return "float16" if device() == "cuda" else "float32"


def products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The products of all rows of [n, d] with all rows of [m, d]: [n, m], in their precision."""
    import torch

    lacking = -len(right) % ALIGNED if right.is_cuda else 0
    if lacking:
        right = torch.nn.functional.pad(right, (0, 0, 0, lacking))
    return (left @ right.T)[:, : right.shape[0] - lacking]


def similarities(left: Array, right: Array, i: Array, j: Array) -> Array:
    """Cosine similarities of the rows `i` of `left` with the rows `j` of `right`, float64
    [len(i)]."""
    found = np.empty(len(i))
    step = max(1, _DECIDED_AT_ONCE // left.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        a, b = left[i[part]].astype(np.float64), right[j[part]].astype(np.float64)
        norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        found[part] = (a * b).sum(axis=1) / norms
    return found


def exact_products(left: Array, right: Array, i: Array, j: Array) -> Array:
    """Products of the rows `i` of `left` with the rows `j` of `right`, float64 [len(i)], summed up
    in one order whatever else is asked for."""
    found = np.empty(len(i))
    step = max(1, _DECIDED_AT_ONCE // left.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        factors = left[i[part]].astype(np.float64)
        factors *= right[j[part]]
        found[part] = factors.sum(axis=1)
    return found


def above(
    left: Vectors, right: Vectors, i: torch.Tensor, j: torch.Tensor, bound: float
) -> torch.Tensor:
    """Whether the cosine similarity of each row `i` of `left` with the row `j` of `right` is above
    a bound, bool [len(i)] on their device."""
    import torch

    found = torch.empty(len(i), dtype=torch.bool, device=i.device)
    step = max(1, _DECIDED_AT_ONCE // left.full.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        a, b = left.full[i[part]].double(), right.full[j[part]].double()
        norms = torch.sqrt((a * a).sum(dim=1) * (b * b).sum(dim=1))
        over = (a * b).sum(dim=1) / norms - bound
        found[part] = over > 0
        close = (over.abs() < ROUNDING).nonzero().ravel()
        if len(close):
            pairs = np.arange(len(close))
            left_host, right_host = (rows[close].float().cpu().numpy() for rows in (a, b))
            exact = similarities(left_host, right_host, pairs, pairs) > bound
            found[start + close] = torch.from_numpy(exact).to(i.device)
    return found


def most_alike(i: Array, j: Array, similarity: Array) -> tuple[Array, Array, Array]:
    """Of pairs, each `i` once with the `j` that it is most alike, of equals the least, and their
    similarity."""
    order = np.lexsort((j, -similarity, i))
    rows, first = np.unique(i[order], return_index=True)
    return rows, j[order][first], similarity[order][first]
