"""The select step: samples with tags, scores or vectors in, one selection out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.pools import first_pools
from tagsieve.errors import RunError
from tagsieve.lake import PAYLOAD_BYTES
from tagsieve.selection.clustering import clustered, equal_share
from tagsieve.selection.complexity_first import complexity_first
from tagsieve.selection.config import (
    ComplexityFirstConfig,
    KCenterConfig,
    KMeansConfig,
    ReprFilterConfig,
    SelectConfig,
    SemDedupConfig,
    TagDiversityConfig,
    TopScoreConfig,
)
from tagsieve.selection.outcome import CHOSEN, Outcome, in_schema, ranked
from tagsieve.selection.scores import combined
from tagsieve.selection.vector_strategies import kcenter, repr_filter, semdedup

KEY = ["pool", "sample_id"]

LACKS = {"tags": "untagged", "scores": "unscored", "embeddings": "no_vector"}
"""Why a sample is no candidate of a strategy that reads these tables."""


@dataclass(frozen=True)
class Sources:
    """Which rows of the tables a recipe's other steps made: the ontology version, the scorers'
    fingerprints by name, the encoder's."""

    version: str | None = None
    scorers: Mapping[str, str] = field(default_factory=dict)
    encoder: str | None = None


def select(context: Context, config: SelectConfig, sources: Sources, pools: Sequence[str]) -> None:
    """Make the selection `config.name`.

    `pools`: in this order a pool keeps a conversation that others have too (pools not named
    follow, by name). Rejected reasons: `untagged`, `unscored`, `no_vector` for what has no row in a
    table that the strategy reads, `other_pool`, `too_alike` and `near_duplicate` by the strategies
    that say so, `not_selected`. Quarantined: vectors that are unusable. Raises RunError on a
    shortfall when `shortfall` is `error`.
    """
    run, lake = context.run, context.lake
    run.unit = "sample"
    run.reads("samples", *sorted(config.reads))
    current = lake.run_of("selections", "selection", config.name)
    read = {
        "tags": sources.version,
        "scores": dict(sources.scorers),
        "embeddings": sources.encoder,
    }
    made_of = {name: read[name] for name in sorted(config.reads)}
    identity = config.model_dump(exclude={"workers"})
    if run.done_before(identity, made_of, list(pools), output_of=current):
        return
    spark = context.engines.spark
    spark.sparkContext.setCheckpointDir(lake.spark_uri(lake.work_uri(run.run_id, "checkpoints")))
    with context.console.spark_progress(spark, "select"):
        samples = _samples(context, config, sources, pools)
        counts = {
            row["reason"]: row["count"] for row in samples.groupBy("reason").count().collect()
        }
    run.input = sum(counts.values())
    eligible = counts.pop(None, 0)
    candidates = samples.where(F.col("reason").isNull()).drop("reason")
    started = time.monotonic()
    outcome = _outcome(context, config, sources, candidates)
    seconds = time.monotonic() - started - run.metrics.get("sort_seconds", 0.0)
    run.metrics["strategy_seconds"] = round(seconds, 3)
    with context.console.spark_progress(spark, "select"):
        chosen = in_schema(outcome.chosen, CHOSEN).withColumns(
            {"selection": F.lit(config.name), "run_id": F.lit(run.run_id)}
        )
        chosen = chosen.persist()
        run.kept = chosen.count()
        missing = config.size - run.kept
        run.metrics |= {"shortfall": float(missing)}
        if missing and config.shortfall == "error":
            raise RunError(
                f"select.size={config.size}: {config.strategy} found {run.kept} rows; "
                f"set select.size={run.kept}, add data, or set select.shortfall=report"
            )
        lake.replace(chosen, "selections", {"selection": config.name})
        if outcome.unusable is not None:
            _quarantine(context, outcome.unusable)
        counts |= outcome.refusals
        rest = eligible - run.kept - sum(outcome.refusals.values()) - run.quarantined.total()
        counts["not_selected"] = rest
        run.rejected.update({reason: count for reason, count in counts.items() if count})
        if config.explain:
            lake.append(_explained(context, samples, outcome, chosen), "rejects")
        chosen.unpersist()
    run.wrote("selections", "rejects")
    if run.quarantined:
        run.wrote("quarantine")
    if isinstance(config, KMeansConfig | SemDedupConfig):
        run.wrote("centroids", "clusters")


def _samples(
    context: Context, config: SelectConfig, sources: Sources, pools: Sequence[str]
) -> DataFrame:
    """Every sample with `tags` and `score` where the strategy reads them, and the `reason` why it
    is no candidate, else null."""
    samples = context.pinned("samples")
    rows = samples.select(*KEY)
    reason = F.lit(None).cast("string")
    for name in sorted(config.reads, key=list(LACKS).index):
        found = _of(context, name, config, sources, samples).withColumn(f"has_{name}", F.lit(True))
        rows = rows.join(found, "sample_id", "left")
        reason = F.coalesce(reason, F.when(F.col(f"has_{name}").isNull(), LACKS[name]))
    if config.dedupe == "pools":
        own = first_pools(samples.select(*KEY), pools).withColumn("own", F.lit(True))
        rows = rows.join(own, KEY, "left")
        reason = F.coalesce(reason, F.when(F.col("own").isNull(), "other_pool"))
    rows = rows.withColumn("reason", reason)
    kept = [name for name in (*KEY, "reason", "tags", "score") if name in rows.columns]
    return context.stored("samples", rows.select(*kept))


def _of(
    context: Context, name: str, config: SelectConfig, sources: Sources, samples: DataFrame
) -> DataFrame:
    """`sample_id`, once, and what the strategy reads of a table."""
    rows = context.pinned(name)
    if name == "tags":
        rows = rows.where(F.col("ontology_version") == F.lit(sources.version))
        return rows.select("sample_id", "tags")
    if name == "embeddings":
        return rows.where(F.col("encoder") == F.lit(sources.encoder)).select("sample_id")
    assert not isinstance(config, ComplexityFirstConfig | KCenterConfig | KMeansConfig)
    turns = samples.select("sample_id", F.size("query_ids").alias("turns")).distinct()
    return combined(rows, turns, sources.scorers, config.score, config.over_turns)


def _outcome(
    context: Context, config: SelectConfig, sources: Sources, candidates: DataFrame
) -> Outcome:
    """What the strategy makes of the candidates (`pool`, `sample_id`, and what it reads)."""
    spark = context.engines.spark
    if "embeddings" in config.reads:
        vectors = context.pinned("embeddings")
        vectors = vectors.where(F.col("encoder") == F.lit(sources.encoder)).select(
            "sample_id", "vector"
        )
        candidates = candidates.join(vectors, "sample_id")
    match config:
        case ComplexityFirstConfig():
            with context.console.spark_progress(spark, "select"):
                return Outcome(complexity_first(candidates, config.size))
        case TopScoreConfig():
            score = F.asc("score") if config.lowest else F.desc("score")
            best = ranked(candidates, config.size, score, "sample_id", "pool")
            return Outcome(best.withColumn("reason", F.lit("score")))
        case TagDiversityConfig():
            return Outcome(tag_diversity(candidates, config.size))
        case ReprFilterConfig():
            return repr_filter(context, config, candidates)
        case KCenterConfig():
            return kcenter(context, config, candidates)
        case KMeansConfig() | SemDedupConfig():
            assert sources.encoder is not None
            clusters, unusable = clustered(context, config, sources.encoder, candidates)
            if isinstance(config, KMeansConfig):
                return Outcome(equal_share(config, candidates, clusters), unusable=unusable)
            return semdedup(context, config, candidates, clusters, unusable)


def tag_diversity(rows: DataFrame, size: int) -> DataFrame:
    """Up to `size` rows (`pool`, `sample_id`, `rank`, `score`, `reason`), each with a tag that no
    row before it has, in the order of `score` (ties: sample id, then pool).

    The sequential rule takes a row that adds a tag to those of the rows taken. A row that is not
    taken adds none, so the tags of the rows taken are those of all rows before: a row is taken
    that is the first of some tag. Reads `pool`, `sample_id`, `score`, `tags`.
    """
    key = F.struct((-F.col("score")).alias("order"), "sample_id", "pool")
    owners = (
        rows.select(key.alias("key"), F.explode("tags").alias("tag"))
        .groupBy("tag")
        .agg(F.min("key").alias("key"))
        .select("key.*")
        .distinct()
    )
    taken = ranked(owners, size, "order", "sample_id", "pool")
    score = (-F.col("order")).alias("score")
    return taken.select("pool", "sample_id", "rank", score, F.lit("new_tag").alias("reason"))


def _quarantine(context: Context, unusable: DataFrame) -> None:
    """Put samples with unusable vectors (`pool`, `sample_id`, `reason`) into quarantine."""
    run = context.run
    counts = unusable.groupBy("reason").count().collect()
    run.quarantined.update({row["reason"]: row["count"] for row in counts})
    if not counts:
        return
    rows = unusable.select(
        F.lit(run.run_id).alias("run_id"),
        F.lit(run.step).alias("step"),
        F.concat_ws("/", "pool", "sample_id").alias("key"),
        "reason",
        F.lit("the vector in embeddings cannot be compared; embed its pool again").alias("error"),
        F.lit(None).cast("binary").alias("payload"),
        F.lit(None).cast("string").alias("resolved_by"),
    )
    context.lake.append(rows, "quarantine")


def _explained(
    context: Context, samples: DataFrame, outcome: Outcome, chosen: DataFrame
) -> DataFrame:
    """Rows for `rejects`: every sample that was neither selected nor quarantined, with its reason,
    and as payload the taken row that it is too like."""
    run = context.run
    sources = context.pinned("samples")
    rows = samples.select(*KEY, "reason").join(chosen.select(*KEY), KEY, "left_anti")
    told, payload = F.lit(None).cast("string"), F.lit(None).cast("binary")
    if outcome.unusable is not None:
        rows = rows.join(outcome.unusable.select(*KEY), KEY, "left_anti")
    if outcome.refused is not None:
        refused = outcome.refused.withColumnRenamed("reason", "told")
        rows = rows.join(refused, KEY, "left")
        told = F.col("told")
        twin = F.to_json(F.struct("nearest", "similarity"))
        payload = F.when(told.isNotNull(), twin).cast("binary")
    reason = F.coalesce("reason", told, F.lit("not_selected"))
    return rows.join(sources.select(*KEY, "source", "source_row"), KEY).select(
        F.lit(run.run_id).alias("run_id"),
        F.lit(run.step).alias("step"),
        "source",
        "source_row",
        "sample_id",
        reason.alias("reason"),
        F.substring(payload, 1, PAYLOAD_BYTES).alias("payload"),
        F.length(payload).cast("long").alias("payload_bytes"),
        "pool",
    )
