"""DEITA's repr filter, one row after the other."""

import numpy as np


def repr_filter(vectors, tau, size):
    """(taken rows, for each decided row the most alike taken row or -1) in the order of rows."""
    wide = vectors.astype(np.float64)
    units = wide / np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    taken, nearest = [], []
    for row in range(len(units)):
        if len(taken) == size:
            break
        alike = (units[taken] * units[row]).sum(axis=1)
        nearest.append(int(np.argmax(alike)) if taken else -1)
        if not taken or alike.max() <= tau:
            taken.append(row)
    return taken, nearest
