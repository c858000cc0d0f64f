"""match_target, one row after the other. Rows are dicts as of `selecting`."""

import numpy as np


def by_tags(rows, wanted, size, passes):
    """(rows of each pass, what is left): Algorithm 1 over the wanted tags."""
    left = [(row, set(row["tags"]) & wanted) for row in rows]
    left.sort(key=lambda pair: (-len(pair[1]), pair[0]["sample_id"], pair[0]["pool"]))
    taken = []
    for number in range(passes if passes is not None else len(rows)):
        covered, skipped = set(), []
        for row, tags in left:
            if len(taken) < size and tags - covered:
                covered |= tags
                taken.append((row, f"tags, pass {number + 1}"))
            else:
                skipped.append((row, tags))
        left = skipped
    return taken, [row for row, _ in left]


def by_neighbours(rows, targets, size, neighbours):
    """(row, conversation, similarity, reason) of the nearest: round after round."""
    vectors = np.array([row["vector"] for row in rows], dtype=np.float32).astype(np.float64)
    best = {}
    for target in sorted(targets, key=lambda target: target["sample_id"]):
        vector = np.array(target["vector"], dtype=np.float32).astype(np.float64)
        norms = np.sqrt((vectors**2).sum(axis=1) * (vector**2).sum())
        alike = (vectors * vector).sum(axis=1) / norms
        order = sorted(
            range(len(rows)), key=lambda n: (-alike[n], rows[n]["sample_id"], rows[n]["pool"])
        )
        for place, n in enumerate(order[:neighbours]):
            found = (place, -alike[n], target["sample_id"])
            best[n] = min(best.get(n, found), found)
    order = sorted(best, key=lambda n: (*best[n][:2], rows[n]["sample_id"], rows[n]["pool"]))
    return [(rows[n], best[n][2], -best[n][1], f"neighbour {best[n][0] + 1}") for n in order[:size]]


def match_target(rows, targets, size, passes=1, neighbours=100, score=None):
    """(pool, sample id, reason, nearest) in the order of taking."""
    wanted = {tag for target in targets for tag in target["tags"]}
    taken, left = by_tags(rows, wanted, size, passes)
    found = [(row, reason, None) for row, reason in taken]
    near = by_neighbours(left, targets, size - len(found), neighbours)
    found += [(row, reason, nearest) for row, nearest, _, reason in near]
    if score is not None:
        had = {(row["pool"], row["sample_id"]) for row, *_ in found}
        rest = [row for row in rows if (row["pool"], row["sample_id"]) not in had]
        rest.sort(key=lambda row: (-row[score], row["sample_id"], row["pool"]))
        found += [(row, "score", None) for row in rest[: size - len(found)]]
    return [(row["pool"], row["sample_id"], reason, nearest) for row, reason, nearest in found]
