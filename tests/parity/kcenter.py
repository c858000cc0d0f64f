"""Greedy k-center, one centre after the other."""

import numpy as np


def kcenter(vectors, first, size):
    """(rows in the order of taking, the squared distance of each to those taken before it)."""
    wide = vectors.astype(np.float64)
    near = np.full(len(wide), np.inf)
    taken, squares = [first], [np.nan]
    while len(taken) < min(size, len(wide)):
        apart = wide - wide[taken[-1]]
        near = np.minimum(near, (apart * apart).sum(axis=1))
        left = np.where(np.isin(np.arange(len(wide)), taken), -1.0, near)
        taken.append(int(np.argmax(left)))
        squares.append(float(left[taken[-1]]))
    return taken, squares
