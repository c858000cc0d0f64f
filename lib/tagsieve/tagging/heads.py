"""Ridge heads: from what is known of a query to a score for every tag, and back from few bits."""

from __future__ import annotations

import numpy as np

from tagsieve.engines.encoders import Array

RIDGE = 0.4


def ridge(wide: Array, truth: Array) -> tuple[Array, Array]:
    """Ridge heads [width, tags], and each example's score by the heads fitted without it.

    Memory and time grow with the square and the cube of the smaller of examples and width.
    """
    import torch

    rows, goal = torch.from_numpy(wide), torch.from_numpy(truth).double()
    if len(wide) < wide.shape[1]:
        # The dual problem: a weight for each example.
        gram = (rows @ rows.T).double()
        gram.diagonal().add_(RIDGE)
        root = torch.linalg.cholesky(gram)
        weights = torch.cholesky_solve(goal, root)
        unit = torch.eye(len(wide), dtype=torch.float64)
        inverse = torch.linalg.solve_triangular(root, unit, upper=False).square().sum(0)[:, None]
        return (rows.T @ weights.float()).numpy(), (goal - weights / inverse).float().numpy()
    rows = rows.double()
    gram = rows.T @ rows
    gram.diagonal().add_(RIDGE)
    root = torch.linalg.cholesky(gram)
    heads = torch.cholesky_solve(rows.T @ goal, root)
    leverage = torch.linalg.solve_triangular(root, rows.T, upper=False).square().sum(0)[:, None]
    left_out = (rows @ heads - leverage * goal) / (1 - leverage)
    return heads.float().numpy(), left_out.float().numpy()


def in_few_bits(name: str, matrix: Array, steps: float) -> dict[str, Array]:
    """A matrix as whole steps, `steps` of them to a column's standard deviation, and the steps'
    sizes: int8 values that a file compresses well. `from_few_bits` reads it back."""
    size = np.maximum(matrix.std(0) / steps, np.abs(matrix).max(0) / 127) + 1e-12
    whole = np.round(matrix / size).astype(np.int8)
    return {name: whole, f"{name}_step": size.astype(np.float32)}


def from_few_bits(arrays: dict[str, Array], name: str) -> Array:
    """What `in_few_bits` stored: float32."""
    return np.asarray(arrays[name].astype(np.float32) * arrays[f"{name}_step"])
