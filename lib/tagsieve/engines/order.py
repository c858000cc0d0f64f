"""The places of rows in an order, without sorting them all as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

BLOCK_BITS = 10
"""A group of rows is put in order in 1,024 blocks, so that none of 100 million is over 100,000."""


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
