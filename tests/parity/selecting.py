"""Selections, one row after the other. Rows are dicts with `pool`, `sample_id`, `score`, `tags`,
`vector`, `cluster`."""

import numpy as np

from parity.kcenter import kcenter
from parity.repr_filter import repr_filter


def best_first(rows):
    return sorted(rows, key=lambda row: (-row["score"], row["sample_id"], row["pool"]))


def by_id(rows):
    return sorted(rows, key=lambda row: (row["sample_id"], row["pool"]))


def keys(rows):
    return [(row["pool"], row["sample_id"]) for row in rows]


def matrix(rows):
    return np.array([row["vector"] for row in rows], dtype=np.float32)


def top_score(rows, size):
    return keys(best_first(rows)[:size])


def tag_diversity(rows, size):
    seen, taken = set(), []
    for row in best_first(rows):
        if len(taken) < size and not set(row["tags"]) <= seen:
            seen |= set(row["tags"])
            taken.append(row)
    return keys(taken)


def filtered(rows, tau, size):
    """(keys of the taken rows, of each decided row the sample id of its most alike taken one)."""
    rows = best_first(rows)
    taken, nearest = repr_filter(matrix(rows), tau, size)
    names = [rows[n]["sample_id"] for n in taken]
    told = {keys([row])[0]: names[n] if n >= 0 else None
            for row, n in zip(rows, nearest, strict=False)}  # fmt: skip
    return keys(rows[n] for n in taken), told


def centred(rows, first, size):
    """(keys of the taken rows, their distances)."""
    rows = by_id(rows)
    start = keys(rows).index(first)
    taken, squares = kcenter(matrix(rows), start, size)
    return keys(rows[n] for n in taken), np.sqrt(squares).tolist()


def deduped(rows, threshold, size):
    """(keys of the best rows that no better kept row of their cluster is too like, and of each
    removed one the sample ids of such rows)."""
    kept, twins = [], {}
    for row in best_first(rows):
        a = np.array(row["vector"], dtype=np.float64)
        like = []
        for other in kept:
            b = np.array(other["vector"], dtype=np.float64)
            alike = (a @ b) / np.sqrt((a @ a) * (b @ b))
            if other["cluster"] == row["cluster"] and alike > threshold:
                like.append((-alike, other["sample_id"]))
        if like:
            twins[keys([row])[0]] = min(like)[1]
        else:
            kept.append(row)
    return keys(kept[:size]), twins
