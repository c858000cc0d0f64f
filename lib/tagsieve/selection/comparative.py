"""TACOS's selection: the best of each cluster of tags by comparative scoring (section III.B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.compared import comparative_scores, members
from tagsieve.engines.context import Context
from tagsieve.selection.stratified import equally_shared


@dataclass(frozen=True)
class Compared:
    """Which pairs were judged by whom: those of a `pairing` in the first `rounds`, drawn from the
    clusters of a `clustering`, by a `judge`."""

    clustering: str
    pairing: str
    rounds: int
    judge: str


def clusters_of(context: Context, compared: Compared) -> DataFrame:
    """`sample_id` and `cluster`."""
    rows = context.pinned("clusters").where(F.col("clustering") == compared.clustering)
    return rows.select("sample_id", "cluster")


def judged(
    context: Context, compared: Compared, targets: Sequence[str], screening: str | None
) -> DataFrame:
    """`sample_id` and `score` of the conversations that were compared in both orders, and, with
    no score, of those that are the only ones of their cluster."""
    own = (F.col("pairing") == compared.pairing) & (F.col("round") < compared.rounds)
    pairs = context.pinned("pairs").where(own)
    scores = comparative_scores(pairs, context.pinned("judgements"), compared.judge)
    there = members(context, compared.clustering, targets, screening)
    alone = there.groupBy("group_id").agg(
        F.count("*").alias("count"), F.min("sample_id").alias("sample_id")
    )
    alone = alone.where(F.col("count") == 1).join(scores, "sample_id", "left_anti")
    nothing = F.lit(None).cast("double").alias("score")
    return scores.unionByName(alone.select("sample_id", nothing))


def comparative(rows: DataFrame, size: int) -> DataFrame:
    """The first `size` of `rows` (`pool`, `sample_id`, `cluster`, `score`): as many from each
    cluster, the best first, those without a score last: `pool`, `sample_id`, `rank`, `score`,
    `reason`."""
    placed = rows.withColumn("stratum", F.col("cluster"))
    chosen = equally_shared(placed, [F.desc_nulls_last("score")], size)
    cluster = F.concat(F.lit("cluster "), F.col("stratum").cast("string"))
    reason = F.when(F.col("score").isNull(), F.concat(F.lit("unpaired, "), cluster))
    return chosen.select(
        "pool", "sample_id", "rank", "score", F.coalesce(reason, cluster).alias("reason")
    )
