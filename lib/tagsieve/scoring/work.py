"""What is to be scored: the turns of each content, less what has a score or lies in quarantine."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.lake import WHOLE

TURN_COLUMNS = ("sample_id", "turn", "instruction", "response", "earlier", "scorers")


def contents(context: Context) -> DataFrame:
    """`sample_id` and `turns` (how many human ones) of each content, whatever pools hold it."""
    turns = F.size("query_ids").alias("turns")
    return context.pinned("samples").select("sample_id", turns).distinct().where("turns > 0")


def wanted(context: Context, scorers: Sequence[str], whole: Sequence[str] = ()) -> DataFrame:
    """`sample_id`, `turn`, `scorer` of all scores: of `scorers` for each human turn, of `whole` for
    each conversation."""
    found = contents(context)
    per_turn = found.select(
        "sample_id", F.explode(F.sequence(F.lit(0), F.col("turns") - 1)).alias("turn")
    )
    whole_turns = found.select("sample_id", F.lit(WHOLE).alias("turn"))
    return _by(per_turn, scorers).unionByName(_by(whole_turns, whole))


def pending(context: Context, scorers: Sequence[str], whole: Sequence[str] = ()) -> DataFrame:
    """Those of `wanted` that are lacking; of at most `context.limit` turns."""
    lacking = wanted(context, scorers, whole).join(
        _seen(context, [*scorers, *whole]), ["sample_id", "turn", "scorer"], "left_anti"
    )
    if context.limit is None:
        return lacking
    turns = lacking.select("sample_id", "turn").distinct().orderBy("sample_id", "turn")
    return lacking.join(turns.limit(context.limit), ["sample_id", "turn"], "left_semi")


def _by(turns: DataFrame, scorers: Sequence[str]) -> DataFrame:
    names = F.array(*map(F.lit, scorers)).cast("array<string>")
    return turns.select("sample_id", F.col("turn").cast("long"), F.explode(names).alias("scorer"))


def _seen(context: Context, scorers: Sequence[str]) -> DataFrame:
    """`sample_id`, `turn`, `scorer` of what has a score or lies in quarantine."""
    lake, spark = context.lake, context.engines.spark
    scores = lake.read(spark, "scores").select("sample_id", "turn", "scorer")
    key = F.split("key", " ")
    open_rows = lake.read(spark, "quarantine").where(F.col("resolved_by").isNull())
    # Of this step and of replays: what other steps put there is of no scorer.
    quarantined = open_rows.select(
        F.get(key, 1).alias("sample_id"),
        F.get(key, 2).try_cast("long").alias("turn"),
        key[0].alias("scorer"),
    )
    return scores.unionByName(quarantined).where(F.col("scorer").isin(*scorers)).distinct()


def with_texts(context: Context, lacking: DataFrame, earlier: bool) -> DataFrame:
    """`TURN_COLUMNS` of the turns in `lacking`, equal instructions side by side.

    The response is the assistant's turns up to the next human one, joined by line breaks, null
    where there is none; `earlier`: all turns before, else null. Of texts with one id, the least is
    scored.
    """
    turns = lacking.groupBy("sample_id", "turn").agg(
        F.array_sort(F.collect_set("scorer")).alias("scorers")
    )
    texts = (
        context.pinned("samples")
        .join(turns.select("sample_id").distinct(), "sample_id", "left_semi")
        .groupBy("sample_id")
        .agg(F.min("turns").alias("turns"))
    )
    asked = F.filter(
        F.sequence(F.lit(1), F.size("turns")),
        lambda place: F.element_at("turns", place)["role"] == "user",
    )
    placed = (
        texts.withColumn("asked", asked)
        .join(turns, "sample_id")
        .withColumn("place", F.element_at("asked", (F.col("turn") + 1).cast("int")))
        .withColumn(
            "next",
            F.coalesce(
                F.try_element_at("asked", (F.col("turn") + 2).cast("int")), F.size("turns") + 1
            ),
        )
    )
    return (
        placed.withColumn("instruction", F.element_at("turns", F.col("place"))["content"])
        .withColumn("response", _response())
        .withColumn("earlier", F.when(F.lit(earlier), F.slice("turns", 1, F.col("place") - 1)))
        .select(*TURN_COLUMNS)
        .repartition("instruction")
        .sortWithinPartitions("instruction", "sample_id", "turn")
    )


def _response() -> Column:
    between = F.slice("turns", F.col("place") + 1, F.col("next") - F.col("place") - 1)
    replies = F.filter(between, lambda turn: turn["role"] == "assistant")
    joined = F.array_join(F.transform(replies, lambda turn: turn["content"]), "\n")
    return F.when(F.size(replies) > 0, joined)
