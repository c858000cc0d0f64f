"""k-means: centroids that are made once and stay, and which one is nearest to a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tagsieve.engines.vectors import Array, Products, on_device, products
from tagsieve.lake import Lake, rows_table

if TYPE_CHECKING:
    import torch

ROWS_PER_CENTROID = 256
"""Rows that train one centroid; more of them hardly move it (faiss says the same)."""

_AT_ONCE = 4_000_000


def train(vectors: Array, clusters: int, seed: int, iterations: int) -> Array:
    """Centroids of vectors (float32 [n, d], n >= clusters) by k-means: float32 [clusters, d]."""
    import faiss

    made = faiss.Kmeans(
        vectors.shape[1],
        clusters,
        niter=iterations,
        seed=seed,
        max_points_per_centroid=ROWS_PER_CENTROID,
        min_points_per_centroid=1,
    )
    made.train(vectors)
    return np.asarray(made.centroids, dtype=np.float32)


def kept_centroids(lake: Lake, clustering: str, make: Callable[[], Array]) -> Array:
    """The centroids of a clustering in the table `centroids`, float32 [k, d]; where there are none,
    what `make` gives is stored first."""
    filters = [("clustering", "=", clustering)]
    if not lake.arrow("centroids", ["cluster"], filters).num_rows:
        made = [
            {"clustering": clustering, "cluster": number, "vector": vector}
            for number, vector in enumerate(make().tolist())
        ]
        lake.append_once("centroids", rows_table("centroids", made), f"train {clustering}", 1)
    # Read back: of two runs that train at the same time, one stores what both then go by.
    rows = lake.arrow("centroids", filters=filters).sort_by("cluster")
    flat = rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(rows.num_rows, -1), dtype=np.float32)


class Centroids:
    """Stored centroids (float32 [k, d]): which one is nearest to a row does not depend on block
    size, precision, threads or device."""

    def __init__(self, centroids: Array, dtype: str | None = None) -> None:
        import torch

        self._exact = centroids.astype(np.float64)
        self._products = Products(dtype)
        full = on_device(centroids)
        self._norms = torch.linalg.vector_norm(full, dim=1)
        # A centroid may be zero, where nothing says that no rows cancel out.
        units = full / self._norms.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        self._units = units.to(self._products.dtype)

    def assign(self, vectors: Array) -> tuple[Array, Array]:
        """For each vector (float32 [n, d], none zero) the nearest centroid, of equals the first
        (int64 [n]), and the distance to it (float64 [n])."""
        import torch

        clusters = np.empty(len(vectors), dtype=np.int64)
        distances = np.empty(len(vectors))
        step = max(1, _AT_ONCE // len(self._exact))
        with torch.inference_mode():
            for start in range(0, len(vectors), step):
                rows = vectors[start : start + step]
                i, j = self._close(rows)
                apart = rows.astype(np.float64)[i] - self._exact[j]
                squares = (apart * apart).sum(axis=1)
                order = np.lexsort((j, squares, i))
                _, first = np.unique(i[order], return_index=True)
                best = order[first]
                clusters[start : start + step] = j[best]
                distances[start : start + step] = np.sqrt(squares[best])
        return clusters, distances

    def _close(self, rows: Array) -> tuple[Array, Array]:
        """Pairs of a row and a centroid that may be its nearest, in the order of rows."""
        block = self._products.load(rows)
        norms = self._norms
        long = block.full.norm(dim=1)[:, None]
        cosines = products(block.units, self._units).float()
        # c^2 - 2 n c cos orders the centroids of a row as the distance does.
        rough: torch.Tensor = norms * norms - 2 * long * norms * cosines
        off = 2 * long * norms * self._products.margin + 4e-6 * norms * norms
        least = (rough + off).amin(dim=1, keepdim=True)
        i, j = (rough - off <= least).nonzero(as_tuple=True)
        return i.cpu().numpy(), j.cpu().numpy()
