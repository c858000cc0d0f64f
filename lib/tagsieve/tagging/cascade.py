"""The cascade: the memory tagger where it is confident, a language model for the rest.

Both taggers' answers are kept under their own fingerprints, so that neither is asked twice,
whatever the threshold; the cascade's own rows are copies of the one or the other.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.handover import read_chunks, write_rows
from tagsieve.engines.quarantine import close_quarantine
from tagsieve.engines.turns import distinct_queries
from tagsieve.lake import TABLES, rows_table
from tagsieve.lease import lease
from tagsieve.ledger import StepRun
from tagsieve.tagging.bank import bank_mean_tags
from tagsieve.tagging.config import CascadeConfig, SingleTaggerConfig
from tagsieve.tagging.llm import llm_fingerprint
from tagsieve.tagging.memory import bank_folders, memory_fingerprint
from tagsieve.tagging.work import (
    answers_of,
    count_queries,
    tag_pending,
    unanswered,
    writer_of,
)

COPIED_ROWS = 20_000
"""Rows of the cascade that one commit puts into `raw_tags`, and that the driver holds: some MB."""

DIGITS = 4
"""Confidences are told apart to so many digits, so that a threshold is found from few numbers."""


@dataclass(frozen=True, order=True)
class Bin:
    """Queries of one confidence (None: the memory tagger has no answer), and their tags."""

    confidence: float | None
    queries: int
    tags: int


@dataclass(frozen=True)
class Threshold:
    """From this confidence on the memory tagger's answer is taken; what that lets expect."""

    value: float
    llm_share: float
    expected_f1: float


def choose_threshold(bins: list[Bin], config: CascadeConfig, mean_tags: float) -> Threshold:
    """The threshold that the config's budget or quality asks for.

    `llm_share`: the highest one at which at most that share lies below. `target_f1`: the lowest one
    that lets expect that micro F1, when the language model's tags, `mean_tags` a query, are the
    right ones. A query of which the memory tagger has no answer always lies below.
    """
    total = sum(b.queries for b in bins)
    below = sum(b.queries for b in bins if b.confidence is None)
    rising = sorted((b.confidence, b) for b in bins if b.confidence is not None)
    # Hits twice and the tags of both sides: F1 is their quotient. The model's own are all hits.
    hits = found = 2.0 * below * mean_tags
    for confidence, b in rising:
        both = b.tags + b.queries * mean_tags
        hits, found = hits + confidence * both, found + both
    best = Threshold(0.0, below / max(total, 1), hits / max(found, 1e-9))
    for confidence, b in rising:
        share = (below + b.queries) / total
        enough = config.target_f1 is not None and best.expected_f1 >= config.target_f1
        given = config.threshold is not None and confidence >= config.threshold
        if enough or given or (config.llm_share is not None and share > config.llm_share):
            break
        both = b.tags + b.queries * mean_tags
        below += b.queries
        hits += 2 * b.queries * mean_tags - confidence * both
        found += 2 * b.queries * mean_tags - both
        best = Threshold(round(confidence + 10.0**-DIGITS, DIGITS), share, hits / found)
    if config.threshold is not None:
        return Threshold(config.threshold, best.llm_share, best.expected_f1)
    return best


def tag_cascade(context: Context, config: CascadeConfig, tagger: str) -> None:
    """Tag what the cascade has no row for; the ledger's unit is the query, once for both taggers.

    The driver holds at most 10^4 confidences, or `COPIED_ROWS` answers, beside what `tag_pending`
    holds.
    """
    run, lake, spark = context.run, context.lake, context.engines.spark
    memory, llm = memory_fingerprint(config.memory), llm_fingerprint(config.llm)
    writer = writer_of(lake, tagger)
    todo = unanswered(context, distinct_queries(context.pinned("samples")), tagger, llm)
    if context.limit is not None:
        todo = todo.orderBy("query_id").limit(context.limit)
    folder = lake.work_uri(run.run_id, "cascade")
    with context.console.spark_progress(spark, "tag"):
        count = write_rows(lake, todo, folder)
        known = 0 if context.limit is not None else count_queries(context) - count
    run.known, run.input = known, known + count
    if not count:
        return
    todo = spark.read.parquet(lake.spark_uri(folder))
    with ExitStack() as leases:
        for name in (memory, llm):
            leases.enter_context(lease(lake, f"tag-{name}", run.run_id))
        _ask(context, config.memory, memory, todo)
        sure = _confidences(context, memory, todo)
        threshold = _threshold(context, config, tagger, sure)
        unsure = F.col("confidence").isNull() | (F.col("confidence") < threshold)
        rest = todo.join(sure.where(unsure).select("query_id"), "query_id", "left_semi")
        asked = _ask(context, config.llm, llm, rest)
    run.quarantined.update(asked.quarantined)
    run.rejected.update(asked.rejected)
    rows = _answers(context, tagger, todo, sure, threshold, (memory, llm))
    # Not by Spark, whose commits to an object store lose those that other taggers make meanwhile.
    copied = lake.work_uri(run.run_id, "cascade-rows")
    write_rows(lake, rows, copied)
    for chunk in read_chunks(copied, COPIED_ROWS):
        writer.append("raw_tags", chunk)
    answered = todo.join(answers_of(context, tagger), "query_id", "left_semi")
    run.kept = answered.count()
    # What the memory tagger could not read, the language model has.
    close_quarantine(context, memory, "query_id", answered)
    run.metrics["llm_share"] = round(asked.input / count, 4)
    run.wrote("cascades")


def _ask(context: Context, config: SingleTaggerConfig, tagger: str, queries: DataFrame) -> StepRun:
    """Have one tagger answer those of `queries` that it has not answered yet."""
    run = StepRun(context.lake, context.run.run_id, context.run.step, context.run.unit)
    writer = writer_of(context.lake, tagger)
    pending = unanswered(context, queries, tagger)
    try:
        run.input = tag_pending(context, config, tagger, writer, pending, run)
    finally:
        kind = config.kind
        context.run.metrics |= {f"{kind}_{name}": value for name, value in run.metrics.items()}
        calls = run.metrics.get("model_calls", 0.0)
        if kind != "memory":
            context.run.metrics["model_calls"] = calls
    return run


def _confidences(context: Context, memory: str, queries: DataFrame) -> DataFrame:
    """`query_id`, `confidence` (null: no answer), `tags` (their number) by the memory tagger."""
    answers = answers_of(context, memory).select(
        "query_id",
        F.round("confidence", DIGITS).alias("confidence"),
        F.size("tags").alias("tags"),
    )
    return queries.select("query_id").join(answers, "query_id", "left")


def _threshold(context: Context, config: CascadeConfig, tagger: str, sure: DataFrame) -> float:
    """The cascade's threshold: the one of its first run, for later queries are judged alike."""
    lake, run = context.lake, context.run
    kept = lake.arrow("cascades", ["threshold"], [("tagger", "=", tagger)])["threshold"]
    if len(kept):
        return float(kept[0].as_py())
    bins = [
        Bin(row["confidence"], row["queries"], row["tags"])
        for row in sure.groupBy("confidence")
        .agg(F.count("*").alias("queries"), F.coalesce(F.sum("tags"), F.lit(0)).alias("tags"))
        .collect()
    ]
    chosen = choose_threshold(bins, config, bank_mean_tags(bank_folders(config.memory)[0]))
    row = {
        "tagger": tagger,
        "threshold": chosen.value,
        "llm_share": chosen.llm_share,
        "expected_f1": chosen.expected_f1,
        "queries": sum(b.queries for b in bins),
        "memory": memory_fingerprint(config.memory),
        "llm": llm_fingerprint(config.llm),
        "created": datetime.now(UTC),
        "run_id": run.run_id,
    }
    # A limited run must not decide for the whole.
    if context.limit is None:
        lake.append_next("cascades", rows_table("cascades", [row]), f"tag {tagger}", 0)
    context.console.line(
        f"cascade: the memory tagger answers from confidence {chosen.value:.4f} on; the language "
        f"model is left {chosen.llm_share:.1%} of {row['queries']:,} queries, expected F1 "
        f"{chosen.expected_f1:.1%} of its own"
    )
    return chosen.value


def _answers(
    context: Context,
    tagger: str,
    todo: DataFrame,
    sure: DataFrame,
    threshold: float,
    taggers: tuple[str, str],
) -> DataFrame:
    """The answers, of whichever tagger, under the cascade's own name."""
    memory, llm = (answers_of(context, name) for name in taggers)
    confident = sure.where(F.col("confidence") >= threshold).select("query_id")
    rows = memory.join(confident, "query_id", "left_semi").unionByName(
        llm.join(
            todo.select("query_id").join(confident, "query_id", "left_anti"),
            "query_id",
            "left_semi",
        )
    )
    named = rows.withColumns({"tagger": F.lit(tagger), "run_id": F.lit(context.run.run_id)})
    return named.select(*TABLES["raw_tags"].schema.names)
