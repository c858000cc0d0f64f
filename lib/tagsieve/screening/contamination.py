"""Questions of test sets in the turns of samples, by n-grams of words.

After the n-gram overlap of GPT-3 (Brown et al. 2020, appendix C) and its successors, with the
n-grams weighted by inverse document frequency (Spärck Jones 1972): that a turn has "what do you
think of" in common with a question says little, that it has "of Brexit" says much.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.screening.config import NGramConfig
from tagsieve.screening.words import hashed, human, runs, words_of

_ROUNDING = 1e-9
"""How far two ways to sum up weights may be apart, and more."""


def contaminated_turns(
    context: Context, config: NGramConfig, samples: DataFrame, questions: DataFrame
) -> DataFrame:
    """Contents with a question of a test set in one of their turns: `sample_id`, `test_set`,
    `question`, `turn` (0-based, of all turns: the one that has most of it, then the first),
    `overlap` (the weighted share of the question's n-grams that the turn has).

    Reads `sample_id`, `turns` of `samples`; `test_set`, `question`, `text` of `questions`. Work
    grows with the distinct texts of turns, each of which is looked at once.
    """
    places = _places(config, samples)
    first = places.groupBy("text_id").agg(F.any_value("content").alias("content"))
    texts = first.select("text_id", words_of()(F.col("content")).alias("words"))
    texts = context.stored("turns", texts.where(F.size("words") > 0))
    asked = questions.select("test_set", "question", words_of()(F.col("text")).alias("words"))
    asked = context.stored("asked", asked.where(F.size("words") > 0))
    short = F.size("words") < max(config.whole_below, config.size)
    found = _whole(texts, asked.where(short)).unionByName(
        _overlapping(context, config, texts, asked.where(~short))
    )
    best = F.max(F.struct("overlap", (-F.col("turn")).alias("before"))).alias("best")
    return (
        context.stored("matches", found)
        .join(places.select("text_id", "sample_id", "turn"), "text_id")
        .groupBy("sample_id", "test_set", "question")
        .agg(best)
        .select(
            "sample_id",
            "test_set",
            "question",
            (-F.col("best.before")).alias("turn"),
            F.col("best.overlap").alias("overlap"),
        )
    )


def _places(config: NGramConfig, samples: DataFrame) -> DataFrame:
    """Every turn that is looked at: `sample_id`, `turn`, `content`, `text_id` (a digest of it)."""
    contents = samples.groupBy("sample_id").agg(F.min("turns").alias("turns"))
    turns = contents.select("sample_id", F.posexplode("turns").alias("turn", "said"))
    if config.turns == "human":
        turns = turns.where(human(F.col("said")))
    return turns.select(
        "sample_id",
        F.col("turn").cast("long").alias("turn"),
        F.col("said.content").alias("content"),
        F.md5("said.content").alias("text_id"),
    )


def _whole(texts: DataFrame, asked: DataFrame) -> DataFrame:
    """Texts of the same words as a short question."""
    same = texts.join(asked, "words")
    return same.select("text_id", "test_set", "question", F.lit(1.0).alias("overlap"))


def _overlapping(
    context: Context, config: NGramConfig, texts: DataFrame, asked: DataFrame
) -> DataFrame:
    """Texts with at least the least overlap with a question: `text_id`, `test_set`, `question`,
    `overlap`.

    A text that has it shares one of the question's rarest n-grams, those that together weigh more
    than what it may lack (prefix filtering: Chaudhuri, Ganti and Kaushik 2006). So only these are
    joined, and what is common to all texts is not; the texts that they bring are compared whole.
    """
    grams = runs(F.col("words"), config.size)
    listed = asked.select("test_set", "question", F.explode(grams).alias("words")).distinct()
    listed = listed.withColumn("gram", F.xxhash64("words"))
    known = context.stored("grams", listed.select("gram").distinct())
    of_texts = texts.select("text_id", F.explode(F.array_distinct(hashed(grams))).alias("gram"))
    hits = context.stored("hits", of_texts.join(known, "gram", "left_semi"))
    weighted = context.stored("weighted", _weighted(listed, hits, texts.count()))
    inside = Window.partitionBy("test_set", "question").orderBy(F.desc("weight"), "gram", "words")
    before = F.sum("weight").over(inside.rowsBetween(Window.unboundedPreceding, -1))
    whole = F.sum("weight").over(Window.partitionBy("test_set", "question"))
    lacking = whole * (1 - config.min_overlap) + _ROUNDING
    rare = weighted.withColumns({"before": F.coalesce(before, F.lit(0.0)), "lacking": lacking})
    rare = rare.where(F.col("before") <= F.col("lacking")).select("test_set", "question", "gram")
    close = hits.join(context.stored("rare", rare), "gram")
    close = context.stored("close", close.select("text_id", "test_set", "question").distinct())
    own = texts.join(close.select("text_id").distinct(), "text_id")
    own = own.select("text_id", F.explode(grams).alias("words")).distinct()
    question = ["test_set", "question"]
    shared = close.join(weighted, question).join(own, ["text_id", "words"])
    shared = shared.groupBy("text_id", *question).agg(_total().alias("shared"))
    compared = shared.join(weighted.groupBy(*question).agg(_total().alias("whole")), question)
    overlap = F.col("shared") / F.col("whole")
    return compared.select("text_id", *question, overlap.alias("overlap")).where(
        F.col("overlap") >= config.min_overlap - _ROUNDING
    )


def _weighted(listed: DataFrame, hits: DataFrame, texts: int) -> DataFrame:
    """The n-grams of questions with their `weight`, log(1 + N / (1 + the texts that have it)) of N
    texts, which is never zero."""
    counts = hits.groupBy("gram").count()
    frequency = F.coalesce("count", F.lit(0))
    weight = F.log1p(F.lit(float(texts)) / (1 + frequency))
    # A pool without any text weighs nothing.
    weight = F.greatest(weight, F.lit(_ROUNDING))
    return listed.join(counts, "gram", "left").select(
        "test_set", "question", "words", "gram", weight.alias("weight")
    )


def _total() -> Column:
    """The sum of `weight` over a group, in one order, so that it is the same bits each time."""
    listed = F.sort_array(F.collect_list("weight"))
    return F.aggregate(listed, F.lit(0.0), lambda total, weight: total + weight)
