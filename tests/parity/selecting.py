"""Selections, one row after the other. Rows are dicts with `pool`, `sample_id`, `score`, `tags`,
`vector`, `cluster`."""

from collections import Counter

import numpy as np
import xxhash

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


def tag_coverage(rows, tags, coverage, mean, size):
    """(keys of the rows that add tags, in order; keys of those that fill up), one at a time."""
    order = sorted((row for row in rows if row["tags"]),
                   key=lambda row: (-len(row["tags"]), row["sample_id"], row["pool"]))  # fmt: skip
    covered, adding = set(), []
    for row in order:
        if len(covered) / len(tags) > coverage or len(adding) == size:
            break
        if set(row["tags"]) - covered:
            adding.append(row)
            covered |= set(row["tags"])
    left = [row for row in order if row not in adding and set(row["tags"]) <= covered]
    taken = list(adding)
    while len(taken) < size and left:
        lacking = mean * (len(taken) + 1) - sum(len(row["tags"]) for row in taken)
        row = min(left, key=lambda row: (abs(len(row["tags"]) - lacking), len(row["tags"]),
                                         row["sample_id"], row["pool"]))  # fmt: skip
        left.remove(row)
        taken.append(row)
    return keys(adding), keys(taken[len(adding) :])


def draw(row, seed):
    """Spark's xxhash64 of the seed (an int), sample id and pool: each seeds the next."""
    value = 42
    for part in (seed.to_bytes(4, "little", signed=True), row["sample_id"].encode(),
                 row["pool"].encode()):  # fmt: skip
        value = xxhash.xxh64_intdigest(part, seed=value)
    return value - 2**64 if value >= 2**63 else value


def drawn(rows, seed, size, by=lambda row: 0):
    order = sorted(rows, key=lambda row: (by(row), draw(row, seed), row["sample_id"], row["pool"]))
    return keys(order[:size])


def strata(rows, by):
    """The stratum of each row by its key."""
    if by == "tag":
        counts = Counter(tag for row in rows for tag in row["tags"])
        rarest = [min(row["tags"], key=lambda tag: (counts[tag], tag), default="none")
                  for row in rows]  # fmt: skip
        return dict(zip(keys(rows), rarest, strict=True))
    name = by.removeprefix("meta.")
    return dict(zip(keys(rows), (row[name] for row in rows), strict=True))


def stratified(rows, stratum, weight, size, seed=None, least=(), most=()):
    """Webster's method, one row at a time: the stratum with the greatest weight for each half row
    that it would have more; those that are due their least come first."""
    least, most = dict(least), dict(most)
    queues = {}
    ordered = keys(best_first(rows)) if seed is None else drawn(rows, seed, len(rows))
    for key in ordered:
        queues.setdefault(stratum[key], []).append(key)
    weights = {name: weight(len(queue)) for name, queue in queues.items()}
    given, taken = Counter(), []
    while len(taken) < size:
        open_ones = [
            name for name, queue in queues.items()
            if queue and given[name] < most.get(name, len(rows))
        ]  # fmt: skip
        if not open_ones:
            break
        due = [name for name in open_ones if given[name] < least.get(name, 0)]
        name = min(due or open_ones, key=lambda name: ((given[name] + 0.5) / weights[name], name))
        given[name] += 1
        taken.append(queues[name].pop(0))
    return taken


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
