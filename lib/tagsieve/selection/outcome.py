"""What a strategy says of the candidates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

CHOSEN = pa.schema(
    [
        ("pool", pa.string()),
        ("sample_id", pa.string()),
        ("rank", pa.int64()),
        ("score", pa.float64()),
        ("reason", pa.string()),
        ("nearest", pa.string()),
        ("similarity", pa.float64()),
    ]
)
REFUSED = pa.schema(
    [
        ("pool", pa.string()),
        ("sample_id", pa.string()),
        ("reason", pa.string()),
        ("nearest", pa.string()),
        ("similarity", pa.float64()),
    ]
)
UNUSABLE = pa.schema([("pool", pa.string()), ("sample_id", pa.string()), ("reason", pa.string())])

_AT_ONCE = 2**17
"""So many first rows each task holds in memory; more are found by sorting all."""


@dataclass(frozen=True)
class Outcome:
    """The rows that a strategy took, and of the others those of which it has more to say.

    `chosen`: columns of `CHOSEN`. `refused`: columns of `REFUSED`, complete only where the
    selection explains itself. `refusals`: how many there are by reason, complete. `unusable`:
    columns of `UNUSABLE`. What is in none of them was not looked at, or simply not taken.
    """

    chosen: DataFrame
    refused: DataFrame | None = None
    refusals: Mapping[str, int] = field(default_factory=dict)
    unusable: DataFrame | None = None


def ranked(rows: DataFrame, size: int, *order: Any) -> DataFrame:
    """The first `size` rows in an order without ties, with their `rank` from 0.

    Many rows need Spark's checkpoint folder to be set.
    """
    if size > _AT_ONCE:
        return cumulated(rows, F.lit(1), "rank", *order).where(F.col("rank") < size)
    # A limit leaves one sorted partition, in which the id that Spark counts up is the position.
    return rows.orderBy(*order).limit(size).withColumn("rank", F.monotonically_increasing_id())


def drawn(seed: int) -> Column:
    """A row's place in a draw: it depends on the seed and the row alone."""
    return F.xxhash64(F.lit(seed), "sample_id", "pool")


def cumulated(rows: DataFrame, weight: Column, name: str, *order: Any) -> DataFrame:
    """Rows with a column `name`: the sum of `weight` (a whole number) over all rows before, in an
    order without ties.

    Sorted in partitions, whose sums are collected: no row's place is found in a window over all.
    Needs Spark's checkpoint folder to be set.
    """
    placed = rows.withColumn(name, weight.cast("long")).orderBy(*order)
    placed = placed.withColumn("_part", F.spark_partition_id()).checkpoint()
    sums = placed.groupBy("_part").agg(F.sum(name).alias("sum")).orderBy("_part").collect()
    before = itertools.accumulate((row["sum"] for row in sums), initial=0)
    pairs = [F.lit(part) for row, total in zip(sums, before, strict=False)
             for part in (row["_part"], total)]  # fmt: skip
    earlier = F.create_map(*pairs)[F.col("_part")] if pairs else F.lit(0)
    within = Window.partitionBy("_part").orderBy(*order)
    within = within.rowsBetween(Window.unboundedPreceding, -1)
    total = F.coalesce(F.sum(name).over(within), F.lit(0)) + earlier
    return placed.withColumn(name, total).drop("_part")


def in_schema(rows: DataFrame, schema: pa.Schema) -> DataFrame:
    """The columns of a schema; those that the rows lack are null."""
    from pyspark.sql.pandas.types import from_arrow_type

    return rows.select(
        *(
            F.col(field.name) if field.name in rows.columns
            else F.lit(None).cast(from_arrow_type(field.type)).alias(field.name)
            for field in schema
        )
    )  # fmt: skip
