"""What people say in the `turns` of samples."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F


def human_turns() -> Column:
    """The human turns, in their order."""
    return F.filter("turns", lambda turn: turn["role"] == "user")


def human_texts() -> Column:
    """What the human turns say."""
    return F.transform(human_turns(), lambda turn: turn["content"])


def first_human_text() -> Column:
    """What the first human turn says; null where there is none."""
    return F.get(human_texts(), F.lit(0))


def distinct_queries(samples: DataFrame) -> DataFrame:
    """`query_id` and `text` of each distinct query; of texts with one id, the least is asked."""
    pairs = F.explode(F.arrays_zip(F.col("query_ids"), human_texts().alias("text"))).alias("pair")
    return (
        samples.select(pairs)
        .groupBy(F.col("pair.query_ids").alias("query_id"))
        .agg(F.min("pair.text").alias("text"))
    )
