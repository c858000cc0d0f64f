"""Conversations that several pools have."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def first_pools(samples: DataFrame, pools: Sequence[str]) -> DataFrame:
    """One (`pool`, `sample_id`) per conversation: the first of `pools`, then by name."""
    order = F.array_position(F.array(*map(F.lit, pools)), F.col("pool")) if pools else F.lit(0)
    place = F.struct((order == 0).alias("unnamed"), order.alias("order"), F.col("pool"))
    return samples.groupBy("sample_id").agg(F.min_by("pool", place).alias("pool"))
