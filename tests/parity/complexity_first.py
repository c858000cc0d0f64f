"""InsTag's Algorithm 1, complexity-first diverse sampling, as the paper writes it: a loop."""


def complexity_first(rows, size):
    """(pool, sample_id, tag count) in the order of taking, from (pool, sample_id, tags)."""
    left = sorted(rows, key=lambda row: (-len(row[2]), row[1], row[0]))
    chosen = []
    while len(chosen) < size:
        covered, skipped, before = set(), [], len(chosen)
        for pool, sample_id, tags in left:
            if len(chosen) < size and set(tags) - covered:
                covered |= set(tags)
                chosen.append((pool, sample_id, len(tags)))
            else:
                skipped.append((pool, sample_id, tags))
        if len(chosen) == before:
            break
        left = skipped
    return chosen
