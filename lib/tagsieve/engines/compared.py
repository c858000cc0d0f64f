"""Which conversations are compared in pairs, and what a judge said of them (TACOS, III.B)."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.screened import screened


def members(
    context: Context, clustering: str, targets: Sequence[str], screening: str | None
) -> DataFrame:
    """`group_id` (a cluster) and `sample_id` of the conversations that are judged: those of a
    cluster, of any pool but `targets`, that a screening does not leave out."""
    clusters = context.pinned("clusters").where(F.col("clustering") == clustering)
    samples = context.pinned("samples").where(~F.col("pool").isin(*targets))
    rows = clusters.join(samples.select("sample_id").distinct(), "sample_id", "left_semi")
    if screening is not None:
        rows = rows.join(screened(context, screening), "sample_id", "left_anti")
    return rows.select(F.col("cluster").cast("string").alias("group_id"), "sample_id")


def both_orders(judgements: DataFrame, judge: str) -> DataFrame:
    """`a`, `b` (ids in order), and `one` and `other`: the scores of `a` and `b` where `a` was shown
    first, and where `b` was. A pair without a judgement in each order is not in the result."""
    pairs = judgements.where((F.col("judge") == judge) & (F.col("kind") == "pair"))
    first, second = F.element_at("items", 1), F.element_at("items", 2)
    in_order = first["id"] < second["id"]
    of_a = F.when(in_order, first["score"]).otherwise(second["score"])
    of_b = F.when(in_order, second["score"]).otherwise(first["score"])
    shown = pairs.select(
        F.least(first["id"], second["id"]).alias("a"),
        F.greatest(first["id"], second["id"]).alias("b"),
        in_order.alias("in_order"),
        F.struct(of_a.alias("a"), of_b.alias("b")).alias("scores"),
    )
    found = shown.groupBy("a", "b").agg(
        F.max(F.when(F.col("in_order"), F.col("scores"))).alias("one"),
        F.max(F.when(~F.col("in_order"), F.col("scores"))).alias("other"),
    )
    return found.where(F.col("one").isNotNull() & F.col("other").isNotNull())


def comparative_scores(pairs: DataFrame, judgements: DataFrame, judge: str) -> DataFrame:
    """`sample_id` and `score`, the mean of all judgements, of those in pairs (`a`, `b`) that were
    judged in both orders. Scores are halves of whole numbers, so their sums are exact."""
    judged = pairs.select("a", "b").distinct().join(both_orders(judgements, judge), ["a", "b"])
    totals = F.array(
        *(
            F.struct(
                F.col(name).alias("sample_id"),
                (F.col("one")[name] + F.col("other")[name]).alias("total"),
            )
            for name in ("a", "b")
        )
    )
    each = judged.select(F.explode(totals).alias("each")).select("each.*")
    mean = (F.sum("total") / (2 * F.count("*"))).alias("score")
    return each.groupBy("sample_id").agg(mean)
