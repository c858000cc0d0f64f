"""Pairs within groups, one group after the other."""

import xxhash


def placed(seed, number, key):
    """Spark's xxhash64 of two longs and a string: each seeds the next."""
    made = xxhash.xxh64_intdigest(seed.to_bytes(8, "little", signed=True), 42)
    made = xxhash.xxh64_intdigest(number.to_bytes(8, "little"), made)
    made = xxhash.xxh64_intdigest(key.encode(), made)
    return made - 2**64 if made >= 2**63 else made


def new_pairs(groups, known, rounds, seed):
    """Set of (group, round, a, b). `groups`: name -> ids; `known`: a set of the same form."""
    found = set()
    for group, ids in groups.items():
        for number in range(rounds):
            order = sorted(ids, key=lambda key: (placed(seed, number, key), key))
            had = {key for g, n, a, b in known if (g, n) == (group, number) for key in (a, b)}
            free = [key for key in order if key not in had]
            while len(free) > 1:
                found.add((group, number, *sorted(free[:2])))
                free = free[2:]
            if free and len(order) > 1:
                place = order.index(free[0])
                mate = order[place - 1] if place else order[1]
                found.add((group, number, *sorted([free[0], mate])))
    return found
