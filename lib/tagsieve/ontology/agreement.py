"""The relations of comparing two taggers, called this and other: frames in, frames out.

The other one's tags are taken for right. Tags are compared by their stem, as the rule step gives
it, each once per query; rules run on distinct tags only.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.ontology.config import RuleConfig
from tagsieve.ontology.normalization import display_forms, with_forms


def answers_of(raw_tags: DataFrame, this: str, other: str) -> DataFrame:
    """One row per query that either answered: `query_id`; `this`, `other`: the raw tags of each.

    A tagger that did not answer has null, one that found no tag an empty list. Reads `query_id`,
    `tagger`, `tags`.
    """

    def given_by(tagger: str, name: str) -> DataFrame:
        rows = raw_tags.where(F.col("tagger") == tagger)
        return rows.select("query_id", F.array_distinct("tags.tag").alias(name))

    return given_by(this, "this").join(given_by(other, "other"), "query_id", "full")


def answer_counts(answers: DataFrame) -> DataFrame:
    """One row, how many queries were answered: `both`, `this`, `other` (by that one only)."""
    by_this, by_other = F.col("this").isNotNull(), F.col("other").isNotNull()
    return answers.agg(
        F.count_if(by_this & by_other).alias("both"),
        F.count_if(by_this & ~by_other).alias("this"),
        F.count_if(by_other & ~by_this).alias("other"),
    )


def query_tags(answers: DataFrame, config: RuleConfig) -> DataFrame:
    """`query_id`, `tag`; `this`, `other`: whether that tagger gives it. Of queries both answered.

    A query without any tag is one row whose `tag` is null. `tag` is the most frequent surface form
    of its stem over both taggers' answers.
    """
    both = answers.where(F.col("this").isNotNull() & F.col("other").isNotNull())
    given = both.withColumn("raw_tag", F.explode_outer(F.array_union("this", "other"))).select(
        "query_id",
        "raw_tag",
        F.array_contains("this", F.col("raw_tag")).alias("this"),
        F.array_contains("other", F.col("raw_tag")).alias("other"),
    )
    counts = (
        given.where(F.col("raw_tag").isNotNull())
        .groupBy(F.col("raw_tag").alias("tag"))
        .agg((F.count_if("this") + F.count_if("other")).alias("count"))
    )
    shown = display_forms(with_forms(counts, config)).select(
        F.col("tag").alias("raw_tag"), F.col("rule_tag").alias("tag")
    )
    return (
        given.join(shown, "raw_tag", "left")
        .groupBy("query_id", "tag")
        .agg(F.bool_or("this").alias("this"), F.bool_or("other").alias("other"))
    )


def agreement(tags: DataFrame) -> DataFrame:
    """One row of figures over the queries of `query_tags`, as in `tagger_agreement`.

    Two empty sets are equal: Jaccard and F1 are 1. Precision is null where this tagger gives no tag
    at all, recall where the other one gives none.
    """
    this, other, shared = F.col("this"), F.col("other"), F.col("shared")
    sizes = tags.groupBy("query_id").agg(
        F.count_if("this").alias("this"),
        F.count_if("other").alias("other"),
        F.count_if(this & other).alias("shared"),
    )
    given = this + other
    return sizes.agg(
        F.count("*").alias("queries"),
        F.mean(((shared == this) & (shared == other)).cast("double")).alias("equal"),
        F.mean(_ratio_or_one(shared, given - shared)).alias("jaccard"),
        F.try_divide(F.sum(shared), F.sum(this)).alias("precision"),
        F.try_divide(F.sum(shared), F.sum(other)).alias("recall"),
        _ratio_or_one(2 * F.sum(shared), F.sum(given)).alias("f1"),
        F.mean(_ratio_or_one(2 * shared, given)).alias("macro_f1"),
        F.mean(this).alias("tags_per_query"),
        F.mean(other).alias("other_tags_per_query"),
    )


def _ratio_or_one(part: Column, whole: Column) -> Column:
    return F.coalesce(F.try_divide(part, whole), F.lit(1.0))


def only_tags(tags: DataFrame) -> DataFrame:
    """Tags that only one of the two gives to some query: `side`, `tag`, `queries`, `shared`.

    `side` is `this` or `other`; `queries` are those where only that side gives the tag, `shared`
    those where both do. Reads the rows of `query_tags`.
    """
    this, other = F.col("this"), F.col("other")
    per_tag = (
        tags.where(F.col("tag").isNotNull())
        .groupBy("tag")
        .agg(
            F.count_if(this & ~other).alias("this"),
            F.count_if(other & ~this).alias("other"),
            F.count_if(this & other).alias("shared"),
        )
    )
    sides = F.array(
        *(
            F.struct(F.lit(side).alias("side"), F.col(side).alias("queries"))
            for side in ("this", "other")
        )
    )
    return per_tag.select(F.inline(sides), "tag", "shared").where(F.col("queries") > 0)
