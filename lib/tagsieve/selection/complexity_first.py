"""InsTag's Algorithm 1, complexity-first diverse sampling, in its exact parallel form."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.selection.outcome import ranked


def complexity_first(rows: DataFrame, size: int) -> DataFrame:
    """Select up to `size` rows: `pool`, `sample_id`, `rank` (from 0), `score` (tags), `reason`.

    Reads `pool`, `sample_id`, `tags` (distinct). The sequential algorithm sorts by tag count
    descending (ties: sample id, then pool) and passes over the rows with an empty covered set,
    taking each row that adds a tag, until `size` rows are taken. Within one pass the rows taken
    are those that own the first occurrence, in that order, of some tag: a skipped row adds nothing
    to the covered set. So a pass is one groupBy(tag).min(key). Rows without tags are never taken;
    fewer than `size` rows come back when a pass takes nothing.

    Each pass runs Spark jobs; their number is about `size` over the rows of a pass. Needs Spark's
    checkpoint folder to be set.
    """
    key = F.struct((-F.size("tags")).alias("order"), "sample_id", "pool")
    # Checkpoints cut the plan, which would otherwise hold all earlier passes.
    left = rows.where(F.size("tags") > 0).select(key.alias("key"), "tags").checkpoint()
    passes: list[DataFrame] = []
    selected = 0
    while selected < size:
        owners = (
            left.select("key", F.explode("tags").alias("tag"))
            .groupBy("tag")
            .agg(F.min("key").alias("key"))
        )
        taken = ranked(owners.select("key").distinct(), size - selected, "key").checkpoint()
        count = taken.count()
        if not count:
            break
        passes.append(
            taken.select(
                F.col("key.pool").alias("pool"),
                F.col("key.sample_id").alias("sample_id"),
                (F.col("rank") + selected).alias("rank"),
                (-F.col("key.order")).cast("double").alias("score"),
                F.lit(f"pass {len(passes) + 1}").alias("reason"),
            )
        )
        selected += count
        left = left.join(taken, "key", "left_anti").checkpoint()
    if not passes:
        empty = "pool string, sample_id string, rank long, score double, reason string"
        return rows.sparkSession.createDataFrame([], empty)
    return reduce(DataFrame.unionByName, passes)
