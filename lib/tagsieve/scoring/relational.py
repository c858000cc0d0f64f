"""Scores that Spark computes: numbers of turns and tags, lengths."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.scoring.config import LengthConfig, RelationalScorerConfig, TagsConfig, TurnsConfig
from tagsieve.scoring.lengths import length
from tagsieve.scoring.rows import NO_RESPONSE
from tagsieve.scoring.work import contents, with_texts

_FAILURE = "struct<key: string, reason: string, error: string, payload: binary>"


def relational_scores(
    context: Context,
    scorers: Mapping[str, RelationalScorerConfig],
    lacking: DataFrame,
    version: str | None,
) -> DataFrame:
    """The rows of `scores` and `failure` for what is `lacking` (`sample_id`, `turn`, `scorer`) of
    `scorers` (by fingerprint).

    A turn without tags of ontology version `version` has no row.
    """
    parts = []
    lengths = {name: c for name, c in scorers.items() if isinstance(c, LengthConfig)}
    if lengths:
        mine = lacking.where(F.col("scorer").isin(*lengths))
        parts.append(_lengths(with_texts(context, mine, earlier=False), lengths))
    for name, config in scorers.items():
        mine = lacking.where(F.col("scorer") == name)
        if isinstance(config, TurnsConfig):
            value = F.col("turns").cast("double").alias("value")
            parts.append(
                mine.join(contents(context), "sample_id").select(
                    "sample_id", "turn", "scorer", value, _no_failure()
                )
            )
        elif isinstance(config, TagsConfig):
            parts.append(_tags(context, mine, version))
    rows = reduce(DataFrame.unionByName, parts)
    return rows.select(
        "sample_id",
        "turn",
        "scorer",
        "value",
        F.lit(None).cast("bigint").alias("tokens"),
        F.lit(None).cast("array<string>").alias("flags"),
        F.lit(context.run.run_id).alias("run_id"),
        "failure",
    )


def _no_failure() -> Column:
    return F.lit(None).cast(_FAILURE).alias("failure")


def _tags(context: Context, lacking: DataFrame, version: str | None) -> DataFrame:
    """Tags of each turn; on which the tagger abstained, 0."""
    of_turn = F.element_at("turn_tags", (F.col("turn") + 1).cast("int"))
    return lacking.join(_turn_tags(context, version), "sample_id").select(
        "sample_id", "turn", "scorer", F.size(of_turn).cast("double").alias("value"), _no_failure()
    )


def untagged(context: Context, lacking: DataFrame, scorer: str, version: str | None) -> DataFrame:
    """Those that `scorer` (of tags) has no row for in `lacking` and gives none: their conversation
    has no tags in this version."""
    mine = lacking.where(F.col("scorer") == scorer)
    return mine.join(_turn_tags(context, version), "sample_id", "left_anti")


def _turn_tags(context: Context, version: str | None) -> DataFrame:
    tags = context.pinned("tags")
    return tags.where(F.col("ontology_version") == F.lit(version)).select("sample_id", "turn_tags")


def _lengths(turns: DataFrame, lengths: Mapping[str, LengthConfig]) -> DataFrame:
    """The lengths of the texts of `turns` (`TURN_COLUMNS`), those that each turn lacks."""
    found = []
    for name, config in lengths.items():
        wanted = F.array_contains("scorers", name)
        # Null, and so not counted, where it is not wanted.
        value = length(F.when(wanted, F.col(config.of)), config)
        found.append(F.struct(F.lit(name).alias("scorer"), value.cast("double").alias("value")))
    scores = turns.withColumn("score", F.explode(F.array(*found))).where(
        F.array_contains("scorers", F.col("score.scorer"))
    )
    key = F.concat_ws(" ", F.col("score.scorer"), "sample_id", F.col("turn").cast("string"))
    failure = F.when(
        F.col("score.value").isNull(),
        F.struct(
            key.alias("key"),
            F.lit(NO_RESPONSE).alias("reason"),
            F.lit("the turn has no reply").alias("error"),
            F.encode("instruction", "UTF-8").alias("payload"),
        ),
    )
    return scores.select(
        "sample_id", "turn", "score.scorer", "score.value", failure.alias("failure")
    )
