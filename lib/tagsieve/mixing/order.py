"""Orders that a seed decides, and the places of rows in them, without sorting a pool as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

BLOCK_BITS = 10
"""A group of rows is put in order in 1,024 blocks, so that none of 100 million is over 100,000."""


def drawn(seed: int, *of: Column) -> Column:
    """A row's place in a random order: a 64-bit hash of the seed, `of`, its pool and sample id.

    It depends on nothing else, so rows that come or go leave the order of all others as it was.
    Orders with different `of` have nothing to do with each other.
    """
    return F.xxhash64(F.lit(seed).cast("long"), *of, "pool", "sample_id")


def in_order(rows: DataFrame, groups: Sequence[str], key: Column) -> DataFrame:
    """Rows with `place` (0 first) and `through` (the sum of `amount` up to it, its own included) in
    their group's order by `key`, a 64-bit hash (ties: sample id, then pool).

    Reads `groups` (never null), `pool`, `sample_id`, `amount`. The leading bits of a hash make
    blocks that follow each other in the order; rows are sorted within a block, and blocks are
    summed up: what a task holds grows with 1/1,024 of a group.
    """
    keyed = rows.withColumn("key", key)
    keyed = keyed.withColumn("block", F.shiftright("key", 64 - BLOCK_BITS))
    block = [*groups, "block"]
    earlier = Window.partitionBy(*groups).orderBy("block")
    earlier = earlier.rowsBetween(Window.unboundedPreceding, -1)
    starts = (
        keyed.groupBy(*block)
        .agg(F.count("*").alias("rows"), F.sum("amount").alias("sum"))
        .select(
            *block,
            F.coalesce(F.sum("rows").over(earlier), F.lit(0)).alias("rows_before"),
            F.coalesce(F.sum("sum").over(earlier), F.lit(0)).alias("sum_before"),
        )
    )
    within = Window.partitionBy(*block).orderBy("key", "sample_id", "pool")
    up_to = within.rowsBetween(Window.unboundedPreceding, 0)
    return (
        keyed.withColumns(
            {
                "nth": F.row_number().over(within),
                "sum_within": F.sum("amount").over(up_to),
            }
        )
        .join(starts, block)
        .withColumns(
            {
                "place": F.col("rows_before") + F.col("nth") - 1,
                "through": F.col("sum_before") + F.col("sum_within"),
            }
        )
        .select(*rows.columns, "place", "through")
    )


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
