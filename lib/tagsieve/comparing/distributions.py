"""How lengths and scores are spread within selections."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.comparing.rows import KEY

DECILES = tuple(tenth / 10 for tenth in range(11))

LENGTHS = {"instruction": "user", "response": "assistant"}
"""What is measured, and the role of its turns."""


def lengths(rows: DataFrame) -> DataFrame:
    """Characters of each row's human turns and of its assistant's turns together: `selection`,
    `name` (instruction, response), `value`. Reads `selection`, `turns`."""
    measured = F.array(
        *(F.struct(F.lit(name).alias("name"), _characters(role).alias("value"))
          for name, role in LENGTHS.items())
    )  # fmt: skip
    return rows.select("selection", F.explode(measured).alias("each")).select(
        "selection", "each.name", "each.value"
    )


def _characters(role: str) -> Column:
    said = F.filter("turns", lambda turn: turn["role"] == role)
    total = F.aggregate(
        said, F.lit(0), lambda length, turn: length + F.char_length(turn["content"])
    )
    return total.cast("double")


def scores(rows: DataFrame, stored: DataFrame) -> DataFrame:
    """The scores of each row's turns, or of it as a whole: `selection`, `name` (the scorer's
    fingerprint), `value`. Reads `selection`, `sample_id`, and of `scores` what has a value."""
    found = stored.where(F.col("value").isNotNull()).select("sample_id", "scorer", "value")
    return (
        rows.select("selection", *KEY)
        .join(found, "sample_id")
        .select("selection", F.col("scorer").alias("name"), "value")
    )


def spread(values: DataFrame) -> DataFrame:
    """Of each selection and name: `count`, `mean`, and the `deciles` from the least to the greatest
    value (11 numbers, exact, interpolated linearly). Reads `selection`, `name`, `value`."""
    return values.groupBy("selection", "name").agg(
        F.count("*").alias("count"),
        F.avg("value").alias("mean"),
        F.percentile("value", F.array(*map(F.lit, DECILES))).alias("deciles"),
    )
