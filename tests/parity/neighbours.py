"""The distance to the k-th nearest other row, one row after the other."""

import numpy as np


def kth_distances(vectors, k):
    """1 - cosine similarity of each row to the k-th nearest other one, inf where there is none."""
    wide = vectors.astype(np.float64)
    found = []
    for row, vector in enumerate(wide):
        others = np.delete(wide, row, axis=0)
        norms = np.sqrt((others * others).sum(axis=1) * (vector * vector).sum())
        similarities = np.sort((others * vector).sum(axis=1) / norms)[::-1]
        found.append(max(1.0 - similarities[k - 1], 0.0) if k <= len(similarities) else np.inf)
    return np.array(found)
