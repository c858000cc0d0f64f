"""Rows that cover a target: a sample of the queries that one cares about."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.selection.complexity_first import complexity_first
from tagsieve.selection.config import MatchTargetConfig
from tagsieve.selection.neighbours import nearest_rows
from tagsieve.selection.outcome import CHOSEN, Outcome, in_schema, ranked

KEY = ["pool", "sample_id"]


def match_target(
    context: Context, config: MatchTargetConfig, candidates: DataFrame, target: DataFrame
) -> Outcome:
    """Take candidates (`pool`, `sample_id`, and as the config says `tags`, `vector`, `score`) in
    three parts, each of what the one before left, until there are `size`.

    Tags: InsTag's Algorithm 1 over those tags alone that the target has, `passes` passes of it, so
    that the rows with most of them come first and no tag that the candidates have is missed.
    Neighbours: of each conversation of the target its `neighbours` most alike rows by cosine
    similarity; the nearest of all conversations come first, then their second ones, and so on; of
    those the more alike. Score: the best of the rest, where the config names a score.

    `target`: its conversations, each once (`sample_id`, `tags`, `vector`). Metrics: `target` (its
    conversations), `target_tags`, how many of them a candidate has (`target_tags_there`) and how
    many the selection (`target_tags_covered`); `target_without_vector`.
    """
    run = context.run
    run.metrics["target"] = float(target.count())
    outcome = Outcome(in_schema(candidates.limit(0), CHOSEN))
    parts: list[DataFrame] = []
    left, room = candidates, config.size

    def take(part: DataFrame) -> None:
        nonlocal left, room
        # Stored, so that it is found once.
        stored = context.stored(f"matched-{len(parts)}", in_schema(part, CHOSEN))
        parts.append(stored.withColumn("rank", F.col("rank") + (config.size - room)))
        room -= stored.count()
        left = left.join(stored.select(*KEY), KEY, "left_anti")

    with context.console.spark_progress(context.engines.spark, "select: match target"):
        if "tags" in config.by:
            own = _tags_of_target(context, candidates, target)
            found = complexity_first(context, own, room, config.passes)
            take(found.withColumn("reason", F.concat(F.lit("tags, "), "reason")))
    if "vectors" in config.by and room:
        found, unusable = nearest_rows(context, config, left, target, room)
        outcome = replace(outcome, unusable=unusable)
        left = left.join(unusable.select(*KEY), KEY, "left_anti")
        take(found)
    if config.score is not None and room:
        best = ranked(left, room, F.desc("score"), "sample_id", "pool")
        take(best.withColumn("reason", F.lit("score")))
    outcome = replace(outcome, chosen=reduce(DataFrame.unionByName, parts))
    if "tags" in config.by:
        covered = own.join(outcome.chosen.select(*KEY), KEY, "left_semi")
        run.metrics["target_tags_there"] = _distinct_tags(own)
        run.metrics["target_tags_covered"] = _distinct_tags(covered)
    return outcome


def _tags_of_target(context: Context, candidates: DataFrame, target: DataFrame) -> DataFrame:
    """`pool`, `sample_id` and `tags` of the candidates that have tags of the target, no others."""
    wanted = target.select(F.explode("tags").alias("tag")).distinct().persist()
    context.run.metrics["target_tags"] = float(wanted.count())
    own = candidates.select(*KEY, F.explode("tags").alias("tag")).join(F.broadcast(wanted), "tag")
    own = own.groupBy(*KEY).agg(F.collect_list("tag").alias("tags"))
    own = context.stored("tags-of-target", own)
    wanted.unpersist()
    return own


def _distinct_tags(rows: DataFrame) -> float:
    return float(rows.select(F.explode("tags").alias("tag")).distinct().count())
