"""The select step: samples with tags, scores or vectors in, one selection out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeGuard

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.pools import first_pools
from tagsieve.engines.screened import SCREENED, screened
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import PAYLOAD_BYTES, TABLES
from tagsieve.ledger import StepRun, fingerprint
from tagsieve.selection.clustering import Clustered, clustered
from tagsieve.selection.comparative import Compared, clusters_of, comparative, judged
from tagsieve.selection.complexity_first import complexity_first
from tagsieve.selection.config import (
    ByScore,
    ComparativeConfig,
    ComplexityFirstConfig,
    FullConfig,
    KCenterConfig,
    KMeansConfig,
    MatchTargetConfig,
    OverTurns,
    RandomConfig,
    ReprFilterConfig,
    SelectConfig,
    SemDedupConfig,
    Sized,
    StratifiedConfig,
    TagCoverageConfig,
    TagDiversityConfig,
    TopScoreConfig,
)
from tagsieve.selection.match_target import match_target
from tagsieve.selection.outcome import CHOSEN, Outcome, cumulated, drawn, in_schema, ranked
from tagsieve.selection.scores import combined
from tagsieve.selection.stratified import NONE, by_rarest_tag, equally_shared, stratified
from tagsieve.selection.tag_coverage import tag_coverage
from tagsieve.selection.vector_strategies import kcenter, repr_filter, semdedup

KEY = ["pool", "sample_id"]

TAKEN = "in_other_selection"

LACKS = {
    "tags": "untagged",
    "scores": "unscored",
    "embeddings": "no_vector",
    "clusters": "no_cluster",
    "judgements": "unjudged",
}
"""Why a sample is no candidate of a strategy that reads these tables."""


@dataclass(frozen=True)
class Sources:
    """Which rows of the tables a recipe's other steps made: the ontology version, the scorers'
    fingerprints by name, the encoder's; the screening whose finds are left out; the pairs that were
    judged."""

    version: str | None = None
    scorers: Mapping[str, str] = field(default_factory=dict)
    encoder: str | None = None
    screening: str | None = None
    compared: Compared | None = None


def select(
    context: Context,
    config: SelectConfig,
    sources: Sources,
    pools: Sequence[str],
    targets: Sequence[str] = (),
    larger: tuple[str, StepRun] | None = None,
) -> None:
    """Make the selection `config.name`.

    `pools`: in this order a pool keeps a conversation that others have too (pools not named
    follow, by name). `targets`: pools to choose nothing from. Rejected reasons: `target` for rows
    of these, `contaminated` and `near_duplicate_text` by the screening,
    `untagged`, `unscored`, `no_vector`, `no_cluster`, `unjudged` (not compared in both orders,
    though there are others of its cluster) for what has no row in a table that the strategy reads,
    `where` for what does not meet the condition, `in_other_selection`, `other_pool`, `too_alike`
    and `near_duplicate` by the strategies that say so, `not_selected`. Quarantined: vectors that
    are unusable. Raises UsageError for a condition that Spark does not understand and for a
    selection in `without` that is not there, RunError on a shortfall when `shortfall` is
    `error`, and when there is no candidate since the encoder or a scorer has made nothing.

    `larger`: the name and the run of a selection of which this is the beginning (`beginnings`), so
    that it is not found again.
    """
    run, lake = context.run, context.lake
    run.unit = "sample"
    tables = sorted(_reads(config, sources))
    run.reads("samples", *tables)
    if sources.screening is not None:
        run.reads(*SCREENED)
    if "judgements" in tables:
        run.reads("pairs")
    current = lake.run_of("selections", "selection", config.name)
    read = {
        "tags": sources.version,
        "scores": dict(sources.scorers),
        "embeddings": sources.encoder,
        "clusters": None,
        "judgements": None if sources.compared is None else asdict(sources.compared),
    }
    made_of = {name: read[name] for name in tables}
    others = {name: lake.run_of("selections", "selection", name) for name in config.without}
    unknown = sorted(name for name, made_by in others.items() if made_by is None)
    if unknown:
        raise UsageError(
            f"select.without names {unknown[0]}, which is no selection of lake {lake.root}; "
            "make it first"
        )
    if isinstance(config, MatchTargetConfig):
        config = config.model_copy(update={"target": config.target or tuple(targets)})
        targets = sorted({*targets, *config.target})
    identity = [config.model_dump(exclude={"workers"}), config.rows, others, list(targets)]
    screening = [] if sources.screening is None else [sources.screening]
    if run.done_before(identity, made_of, list(pools), *screening, output_of=current):
        return
    if larger is not None and larger[1].kept and not larger[1].quarantined:
        _take_beginning(context, config, *larger)
        return
    spark = context.engines.spark
    spark.sparkContext.setCheckpointDir(lake.spark_uri(lake.work_uri(run.run_id, "checkpoints")))
    with context.console.spark_progress(spark, "select"):
        kind = _kind(config, sources, targets)
        name = _candidates(context, config, kind, pools)
        samples = _samples(context, config, sources, pools, targets, f"samples-{name}")
        counts = {
            row["reason"]: row["count"] for row in samples.groupBy("reason").count().collect()
        }
    run.input = sum(counts.values())
    eligible = counts.pop(None, 0)
    if not eligible:
        _check_made(context, sources, counts)
    candidates = samples.where(F.col("reason").isNull()).drop("reason")
    started = time.monotonic()
    wanted = eligible if config.rows is None else config.rows
    if isinstance(config, Sized):
        config = config.model_copy(update={"size": max(1, wanted)})
    of_strategy = candidates.drop("tokens")
    outcome = _outcome(context, config, sources, kind, of_strategy, samples, f"vectors-{name}")
    seconds = time.monotonic() - started - run.metrics.get("sort_seconds", 0.0)
    run.metrics["strategy_seconds"] = round(seconds, 3)
    with context.console.spark_progress(spark, "select"):
        chosen = in_schema(outcome.chosen, CHOSEN)
        found = chosen.count() if config.tokens else None
        if config.tokens:
            chosen = _within(chosen, candidates, config.tokens)
        chosen = chosen.withColumns(
            {"selection": F.lit(config.name), "run_id": F.lit(run.run_id)}
        ).persist()
        run.kept = chosen.count()
        # Not for want of rows where the tokens are spent.
        _check_shortfall(run, config, wanted - (run.kept if found is None else found))
        lake.replace(chosen, "selections", {"selection": config.name})
        if isinstance(config, ComparativeConfig):
            alone = chosen.where(F.col("score").isNull()).count()
            run.metrics["unpaired"] = float(alone)
        if outcome.unusable is not None:
            _quarantine(context, outcome.unusable)
        counts |= outcome.refusals
        rest = eligible - run.kept - sum(outcome.refusals.values()) - run.quarantined.total()
        counts["not_selected"] = rest
        run.rejected.update({reason: count for reason, count in counts.items() if count})
        if config.explain:
            lake.append(_explained(context, sources, samples, outcome, chosen), "rejects")
        chosen.unpersist()
    run.wrote("selections", "rejects")
    if run.quarantined:
        run.wrote("quarantine")
    if _has_clusters(config):
        run.wrote("centroids", "clusters")


def _check_made(context: Context, sources: Sources, counts: dict[str | None, int]) -> None:
    """Raise RunError where nothing can be chosen since the recipe's encoder or one of its scorers
    has made no row of the lake, rather than put an empty selection in the place of another."""
    made = (
        ("embeddings", "embed", [sources.encoder]),
        ("scores", "score", sources.scorers.values()),
    )
    for table, step, named in made:
        if not counts.get(LACKS[table]):
            continue
        column = TABLES[table].partition_by[0]
        found = context.lake.delta(table, context.run.read[table])
        there = {str(part[column]) for part in found.partitions()} if found else set()
        lacking = sorted(name for name in named if name and name not in there)
        if lacking:
            others = f"; those there are by {', '.join(sorted(there))}" if there else ""
            raise RunError(
                f"select: {table} has no row by {lacking[0]}, which the recipe names{others}. Run "
                f"the step {step}, or name the settings that made them (dtype: auto goes by the "
                "machine that submits)"
            )


def _check_shortfall(run: StepRun, config: SelectConfig, missing: int) -> None:
    """Note how many rows are missing. Raises RunError where that is an error."""
    run.metrics |= {"shortfall": float(missing)}
    if missing and config.rows is not None and config.shortfall == "error":
        raise RunError(
            f"select.size={run.kept + missing}: {config.strategy} found {run.kept} rows; "
            f"set select.size={run.kept}, add data, or set select.shortfall=report"
        )


def _take_beginning(context: Context, config: SelectConfig, name: str, larger: StepRun) -> None:
    """Store the first rows of a larger selection as this one."""
    run, lake, spark = context.run, context.lake, context.engines.spark
    assert config.rows is not None
    with context.console.spark_progress(spark, "select"):
        rows = lake.read(spark, "selections").where(F.col("selection") == name)
        chosen = in_schema(rows.where(F.col("rank") < config.rows), CHOSEN)
        named = {"selection": F.lit(config.name), "run_id": F.lit(run.run_id)}
        run.input, run.kept = larger.input, min(config.rows, larger.kept)
        run.rejected.update(larger.rejected)
        run.rejected["not_selected"] += larger.kept - run.kept
        _check_shortfall(run, config, config.rows - run.kept)
        lake.replace(chosen.withColumns(named), "selections", {"selection": config.name})
    run.wrote("selections")


def _has_clusters(config: SelectConfig) -> TypeGuard[Clustered]:
    by_cluster = isinstance(config, StratifiedConfig) and config.by == "cluster"
    return by_cluster or isinstance(config, KMeansConfig | SemDedupConfig)


def _reads(config: SelectConfig, sources: Sources) -> frozenset[str]:
    """Which of the tables of `LACKS` a selection reads."""
    tags = {"tags"} if "tags" in config.words else set()
    scores = {"scores"} if sources.scorers else set()
    return config.reads | tags | scores


def _samples(
    context: Context,
    config: SelectConfig,
    sources: Sources,
    pools: Sequence[str],
    targets: Sequence[str],
    stored_as: str,
) -> DataFrame:
    """Every sample with `tags`, `score` and `tokens` where the selection reads them, and the
    `reason` why it is no candidate, else null; under the name `stored_as`."""
    samples = context.pinned("samples")
    rows = samples.select(*KEY)
    of_target = F.col("pool").isin(*targets)
    reason = F.when(of_target, "target")
    if sources.screening is not None:
        left_out = screened(context, sources.screening).select("sample_id", "left_out")
        rows = rows.join(left_out, "sample_id", "left")
        reason = F.coalesce(reason, "left_out")
    for name in sorted(config.reads, key=list(LACKS).index):
        found = _of(context, name, config, sources, samples, targets)
        found = found.withColumn(f"has_{name}", F.lit(True))
        rows = rows.join(found, "sample_id", "left")
        reason = F.coalesce(reason, F.when(F.col(f"has_{name}").isNull(), LACKS[name]))
    if config.tokens_by:
        every = " + ".join(config.tokens_by)
        counted = _combined(context, sources, samples, every, "sum")
        rows = rows.join(counted.withColumnRenamed("score", "tokens"), "sample_id", "left")
        reason = F.coalesce(reason, F.when(F.col("tokens").isNull(), LACKS["scores"]))
    meeting = samples
    if config.where:
        meeting = _meeting(context, config, sources, samples)
        rows = rows.join(meeting.select(*KEY, F.lit(True).alias("meets")), KEY, "left")
        reason = F.coalesce(reason, F.when(F.col("meets").isNull(), "where"))
    if config.without:
        # Of any pool: it is the content that is not to be taken again.
        taken = context.lake.read(context.engines.spark, "selections")
        taken = taken.where(F.col("selection").isin(*config.without)).select("sample_id").distinct()
        rows = rows.join(taken.withColumn("taken", F.lit(True)), "sample_id", "left")
        reason = F.coalesce(reason, F.when(F.col("taken"), TAKEN))
    if config.dedupe == "pools":
        # Of the pools in which it meets the condition.
        own = first_pools(meeting.where(~of_target).select(*KEY), pools).withColumn(
            "own", F.lit(True)
        )
        rows = rows.join(own, KEY, "left")
        reason = F.coalesce(reason, F.when(F.col("own").isNull(), "other_pool"))
    rows = rows.withColumn("reason", reason)
    columns = (*KEY, "reason", "tags", "score", "cluster", "tokens")
    kept = [column for column in columns if column in rows.columns]
    return context.stored(stored_as, rows.select(*kept), again=False)


def _kind(config: SelectConfig, sources: Sources, targets: Sequence[str]) -> str:
    """A name for the kind of a selection's candidates: all that decides which contents they are,
    but for the rows that the tables have. Which of its pools a content counts for is no part."""
    what = config.model_dump(include={"where", "without", "tokens_by"})
    over_turns = config.over_turns if isinstance(config, ByScore) and config.expression else None
    return fingerprint(what, config.expression, over_turns, asdict(sources), sorted(targets))


def _candidates(context: Context, config: SelectConfig, kind: str, pools: Sequence[str]) -> str:
    """A name for the candidates of a selection: what other selections of the run have the same of
    is not made again."""
    return fingerprint(sorted(config.reads), kind, config.dedupe, list(pools), context.run.read)


def _meeting(
    context: Context, config: SelectConfig, sources: Sources, samples: DataFrame
) -> DataFrame:
    """The samples that meet `where`. Raises UsageError when Spark does not understand it."""
    from pyspark.errors import PySparkException

    rows = samples.drop("query_ids", "source_row", "run_id")
    if "chars" in config.words - sources.scorers.keys():
        lengths = F.transform("turns", lambda turn: F.length(turn["content"]))
        chars = F.aggregate(lengths, F.lit(0), lambda total, length: total + length)
        rows = rows.withColumn("chars", chars)
    if "tags" in config.words:
        rows = rows.join(_tags(context, sources), "sample_id", "left")
    for name in sorted(config.words & sources.scorers.keys()):
        mean = _combined(context, sources, samples, name, "mean")
        rows = rows.join(mean.withColumnRenamed("score", name), "sample_id", "left")
    try:
        return rows.where(str(config.where))
    except PySparkException as error:
        reason = str(error).split(" SQLSTATE")[0].split(";")[0].strip()
        known = ", ".join([*samples.columns, "chars", "tags", "and the names of scorers"])
        raise UsageError(f"select.where={config.where}: {reason}; known: {known}") from error


def _of(
    context: Context,
    name: str,
    config: SelectConfig,
    sources: Sources,
    samples: DataFrame,
    targets: Sequence[str],
) -> DataFrame:
    """`sample_id`, once, and what the strategy reads of a table."""
    if name == "tags":
        return _tags(context, sources)
    if name == "embeddings":
        return _vectors(context, sources).select("sample_id")
    if name in ("clusters", "judgements"):
        assert sources.compared is not None
        if name == "clusters":
            return clusters_of(context, sources.compared)
        return judged(context, sources.compared, targets, sources.screening)
    assert isinstance(config, ByScore)
    assert config.expression is not None
    return _combined(context, sources, samples, config.expression, config.over_turns)


def _tags(context: Context, sources: Sources) -> DataFrame:
    """`sample_id` and `tags` of the ontology version."""
    rows = context.pinned("tags").where(F.col("ontology_version") == F.lit(sources.version))
    return rows.select("sample_id", "tags")


def _vectors(context: Context, sources: Sources) -> DataFrame:
    """`sample_id` and `vector` of the encoder."""
    rows = context.pinned("embeddings").where(F.col("encoder") == F.lit(sources.encoder))
    return rows.select("sample_id", "vector")


def _combined(
    context: Context, sources: Sources, samples: DataFrame, expression: str, over: OverTurns
) -> DataFrame:
    """`sample_id` and `score` by an expression over scorers."""
    turns = samples.select("sample_id", F.size("query_ids").alias("turns")).distinct()
    return combined(context.pinned("scores"), turns, sources.scorers, expression, over)


def _within(chosen: DataFrame, candidates: DataFrame, tokens: int) -> DataFrame:
    """Those of the rows that come, by rank, before the first that would be too many tokens."""
    counted = chosen.join(candidates.select(*KEY, "tokens"), KEY)
    total = cumulated(counted, F.col("tokens"), "before", "rank")
    return total.where(F.col("before") + F.col("tokens") <= tokens).drop("before", "tokens")


def _outcome(
    context: Context,
    config: SelectConfig,
    sources: Sources,
    kind: str,
    candidates: DataFrame,
    samples: DataFrame,
    name: str,
) -> Outcome:
    """What the strategy makes of the candidates (`pool`, `sample_id`, and what it reads; `kind`: of
    what kind they are; `name`: of their vectors) among the `samples`."""
    spark = context.engines.spark
    if "embeddings" in config.reads:
        candidates = candidates.join(_vectors(context, sources), "sample_id")
    match config:
        case ComplexityFirstConfig():
            with context.console.spark_progress(spark, "select"):
                return Outcome(complexity_first(context, candidates, config.size))
        case TagCoverageConfig():
            # Also those of the rows that other selections have.
            whole = samples.where(F.col("reason").isNull() | (F.col("reason") == TAKEN))
            tags = whole.select(F.explode("tags").alias("tag")).distinct().count()
            return Outcome(tag_coverage(config, candidates, tags, config.size))
        case TopScoreConfig():
            score = F.asc("score") if config.lowest else F.desc("score")
            ties = [drawn(config.seed)] if config.ties == "random" else []
            best = ranked(candidates, config.size, score, *ties, "sample_id", "pool")
            return Outcome(best.withColumn("reason", F.lit("score")))
        case RandomConfig():
            rows = ranked(candidates, config.size, drawn(config.seed), "sample_id", "pool")
            return Outcome(rows.withColumn("reason", F.lit("random")))
        case FullConfig():
            rows = cumulated(candidates, F.lit(1), "rank", "sample_id", "pool")
            return Outcome(rows.withColumn("reason", F.lit("all")))
        case StratifiedConfig():
            return _stratified(context, config, sources, kind, candidates)
        case TagDiversityConfig():
            return Outcome(tag_diversity(candidates, config.size))
        case ReprFilterConfig():
            return repr_filter(context, config, candidates, name)
        case KCenterConfig():
            return kcenter(context, config, candidates, name)
        case KMeansConfig() | SemDedupConfig():
            assert sources.encoder is not None
            clusters, unusable = clustered(context, config, sources.encoder, kind, candidates)
            if isinstance(config, SemDedupConfig):
                return semdedup(context, config, candidates, clusters, unusable)
            return Outcome(equal_share(config, candidates, clusters), unusable=unusable)
        case ComparativeConfig():
            return Outcome(comparative(candidates, config.size))
        case MatchTargetConfig():
            target = _target(context, config, sources)
            return match_target(context, config, candidates, target)


def _target(context: Context, config: MatchTargetConfig, sources: Sources) -> DataFrame:
    """The conversations of a target (`sample_id`, `tags`, `vector`, as the config reads them), each
    once. Raises RunError when there is none."""
    samples = context.pinned("samples")
    rows = samples.where(F.col("pool").isin(*config.target)).select("sample_id").distinct()
    if rows.isEmpty():
        raise RunError(
            f"select.target={', '.join(config.target)}: the lake has no conversation of it; run "
            "the step ingest with an input of this pool"
        )
    if "tags" in config.by:
        rows = rows.join(_tags(context, sources), "sample_id", "left")
    if "vectors" in config.by:
        rows = rows.join(_vectors(context, sources), "sample_id", "left")
    return rows


def _stratified(
    context: Context,
    config: StratifiedConfig,
    sources: Sources,
    kind: str,
    candidates: DataFrame,
) -> Outcome:
    """Candidates by strata."""
    unusable = None
    match config.by:
        case "pool":
            rows = candidates.withColumn("stratum", F.col("pool"))
        case "tag":
            rows = by_rarest_tag(candidates)
        case "cluster":
            assert sources.encoder is not None
            clusters, unusable = clustered(context, config, sources.encoder, kind, candidates)
            clusters = clusters.select(
                "sample_id", F.col("cluster").cast("string").alias("stratum")
            )
            rows = candidates.join(clusters, "sample_id")
        case other:
            key = other.removeprefix("meta.")
            value = F.col("lang") if other == "lang" else F.col("meta")[key]
            samples = context.pinned("samples")
            values = samples.select(*KEY, F.coalesce(value, F.lit(NONE)).alias("stratum"))
            rows = candidates.join(values, KEY)
    return Outcome(stratified(config, rows, config.size), unusable=unusable)


def equal_share(config: KMeansConfig, candidates: DataFrame, clusters: DataFrame) -> DataFrame:
    """As many candidates (`pool`, `sample_id`) at random from each cluster: `pool`, `sample_id`,
    `rank`, `reason`, `score` (the distance to the centroid)."""
    placed = candidates.select("pool", "sample_id").join(clusters, "sample_id")
    placed = placed.withColumn("stratum", F.col("cluster"))
    return equally_shared(placed, [drawn(config.seed)], config.size).select(
        "pool",
        "sample_id",
        "rank",
        F.col("distance").alias("score"),
        F.concat(F.lit("cluster "), F.col("cluster")).alias("reason"),
    )


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
    context: Context, sources: Sources, samples: DataFrame, outcome: Outcome, chosen: DataFrame
) -> DataFrame:
    """Rows for `rejects`: every sample that was neither selected nor quarantined, with its reason,
    and as payload the taken row that it is too like, its twin that stays, or the question."""
    run = context.run
    places = context.pinned("samples")
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
    if sources.screening is not None:
        rows = rows.join(screened(context, sources.screening), "sample_id", "left")
        payload = F.coalesce(F.col("why").cast("binary"), payload)
    reason = F.coalesce("reason", told, F.lit("not_selected"))
    return rows.join(places.select(*KEY, "source", "source_row"), KEY).select(
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
