"""Cosine similarities that do not depend on who computes them (METHODS.md, section 7).

Products of blocks in low precision only find what might matter; what might is decided in float64
from the float32 vectors, row by row, in one fixed order of summation. On a GPU if there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tagsieve.engines.encoders import cpu_dtype

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, np.dtype[Any]]

MARGIN = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1e-2}
"""How far a product of unit vectors in this precision may be off: two roundings of each factor,
one of the sum."""

_DECIDED_AT_ONCE = 50_000
"""Pairs whose exact similarity is computed at a time: some 300 MB at 384 dimensions."""


class Products:
    """Products of unit vectors in low precision, and how far they may be off (`margin`).

    `dtype`: of the products; default: bfloat16 on a GPU and on a CPU that has it, else float32.
    """

    def __init__(self, dtype: str | None = None) -> None:
        import torch

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        name = dtype or ("bfloat16" if self.device == "cuda" else cpu_dtype())
        self.margin = MARGIN[name]
        self.dtype: torch.dtype = getattr(torch, name)

    def units(self, vectors: Array) -> torch.Tensor:
        """Vectors (float32 [n, d], none zero) scaled to unit length, on the device."""
        import torch

        part = torch.from_numpy(vectors).to(self.device)
        return torch.nn.functional.normalize(part, dim=1).to(self.dtype)


def similarities(left: Array, right: Array, i: Array, j: Array) -> Array:
    """Cosine similarities of the rows `i` of `left` with the rows `j` of `right`, float64
    [len(i)]."""
    found = np.empty(len(i))
    for start in range(0, len(i), _DECIDED_AT_ONCE):
        part = slice(start, start + _DECIDED_AT_ONCE)
        a, b = left[i[part]].astype(np.float64), right[j[part]].astype(np.float64)
        norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        found[part] = (a * b).sum(axis=1) / norms
    return found


def most_alike(i: Array, j: Array, similarity: Array) -> tuple[Array, Array, Array]:
    """Of pairs, each `i` once with the `j` that it is most alike, of equals the least, and their
    similarity."""
    order = np.lexsort((j, -similarity, i))
    rows, first = np.unique(i[order], return_index=True)
    return rows, j[order][first], similarity[order][first]
