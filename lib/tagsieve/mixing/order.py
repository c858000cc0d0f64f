"""Orders that a seed decides, and the positions of a mixture's rows."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F


def drawn(seed: int, *of: Column) -> Column:
    """A row's place in a random order: a 64-bit hash of the seed, `of`, its pool and sample id.

    It depends on nothing else, so rows that come or go leave the order of all others as it was.
    Orders with different `of` have nothing to do with each other.
    """
    return F.xxhash64(F.lit(seed).cast("long"), *of, "pool", "sample_id")


def interleaved() -> Column:
    """A row's position in its mixture, 0 first, from `place` in its part, `rows` of its part, and
    `others`: an array of (`rows`, `first`) of the mixture's other parts.

    Row i of n of a part stands at (i + 1/2) / n of the mixture (ties: in the order of parts, so
    `first` is 1 for a part that comes before and else 0), which keeps every beginning of a mixture
    in its proportions. How many rows of another part stand before it is a division of whole
    numbers: nothing is sorted. Exact up to two billion rows of a part.
    """
    return F.expr(
        "place + aggregate(others, 0L, (sum, other) -> sum + "
        "((2 * place + 1) * other.rows + rows - 1 + other.first) div (2 * rows))"
    )
