"""Mixtures, one row after the other. Rows are dicts with `pool`, `sample_id`, and where it matters
`part`, `tokens`, `subtask`."""

import struct
from fractions import Fraction

import xxhash


def key(seed, *values):
    """xxHash64 as Spark chains it: each value is hashed with the hash before as the seed."""
    number = 42
    for value in (seed, *values):
        data = value.encode() if isinstance(value, str) else struct.pack("<q", value)
        number = xxhash.xxh64_intdigest(data, number)
    return number - 2**64 if number >= 2**63 else number


def in_order(rows, seed, *of):
    def place(row):
        where = (row["pool"], row["sample_id"])
        return key(seed, *of, *where), *reversed(where)

    return sorted(rows, key=place)


def capped(rows, most, seed):
    """Rows of which no part has more than `most` of a subtask."""
    uses, kept = {}, []
    for row in in_order(rows, seed, "cap"):
        subtask = (row["part"], row["subtask"])
        uses[subtask] = uses.get(subtask, 0) + 1
        if row["subtask"] is None or uses[subtask] <= most:
            kept.append(row)
    return kept


def taken(rows, amount, seed, replace=False):
    """(row, copy) of a part as long as they fit into the amount."""
    found, used, copy = [], 0, 0
    while rows and (replace or not copy):
        for row in in_order(rows, seed, copy):
            used += row.get("tokens", 1)
            if used > amount:
                return found
            found.append((row, copy))
        copy += 1
    return found


def mixture(rows, amounts, seed=0, replace=False):
    """(part, pool, sample id, copy) by position. `amounts`: by part, in the order of parts."""
    placed = []
    for number, (part, amount) in enumerate(amounts.items()):
        found = taken([row for row in rows if row["part"] == part], amount, seed, replace)
        for place, (row, copy) in enumerate(found):
            at = Fraction(2 * place + 1, 2 * len(found))
            placed.append((at, number, (part, row["pool"], row["sample_id"], copy)))
    return [told for _, _, told in sorted(placed)]


def of_first_pools(rows, pools):
    """The rows that are left when the first of `pools` keeps a conversation."""
    first = {}
    for pool in pools:
        for row in rows:
            if row["pool"] == pool:
                first.setdefault(row["sample_id"], pool)
    return [row for row in rows if first.get(row["sample_id"]) == row["pool"]]
