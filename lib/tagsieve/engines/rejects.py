"""Rows of samples that a step refuses, as `rejects` has them."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context


def rejected(context: Context, rows: DataFrame) -> DataFrame:
    """Rows for `rejects` of this step, without the bytes that a sample was read from. Reads
    `source`, `source_row`, `sample_id`, `reason`, `pool`."""
    return rows.select(
        F.lit(context.run.run_id).alias("run_id"),
        F.lit(context.run.step).alias("step"),
        "source",
        "source_row",
        "sample_id",
        "reason",
        F.lit(None).cast("binary").alias("payload"),
        F.lit(None).cast("long").alias("payload_bytes"),
        "pool",
    )
