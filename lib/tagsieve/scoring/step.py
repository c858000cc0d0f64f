"""The score step: contents without scores of these scorers in, `scores` out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.handover import read_chunks, write_rows
from tagsieve.engines.microbatch import Writer, commit_batches
from tagsieve.engines.pending import OVER_BUDGET
from tagsieve.lease import lease
from tagsieve.scoring.asking import ask_judge, ask_model
from tagsieve.scoring.config import (
    JudgeScorerConfig,
    RelationalScorerConfig,
    ScoreConfig,
    TagsConfig,
    TurnsConfig,
)
from tagsieve.scoring.neighbours import (
    NO_VECTOR,
    neighbour_rows,
    stored_vectors,
    vector_set,
    vectors_of,
)
from tagsieve.scoring.relational import relational_scores, untagged
from tagsieve.scoring.scorers import ModelGroup, model_groups, scorer_fingerprints
from tagsieve.scoring.work import contents, pending

UNTAGGED = "untagged"
"""Turns whose tags are not counted because they have none: rejected, stored nowhere, and counted by
a later run that finds them tagged."""

RELATIONAL_ROWS = 2**16


def score(
    context: Context,
    config: ScoreConfig,
    version: str | None = None,
    encoder: str | None = None,
) -> None:
    """Score every human turn of every content, or the whole of it, by each scorer that has no row
    for it yet, in `scores` or in quarantine.

    `version`: the ontology version whose tags are counted; needed by a scorer of kind tags alone.
    `encoder`: whose vectors are compared, needed by neighbour_distance alone. Spark computes what
    is relational; for the rest it hands turns or vectors over as Parquet, Ray actors (one kind for
    each model, judge, and number of neighbours) score chunks of them. The driver commits
    micro-batches, and holds one of them and the chunks at the actors at a time. A content in
    several pools is scored once. What cannot be scored goes to quarantine. One run at a time works
    with a model or a judge, one at a time at what is relational; RunError for the second.
    """
    run = context.run
    run.unit = "score"
    tagged = any(isinstance(scorer, TagsConfig) for scorer in config.scorers)
    run.reads("samples", *(["tags"] if tagged else []))
    if config.by_neighbours:
        run.reads("embeddings")
    # The versions read say which vectors there are; to look at them takes Spark.
    if run.done_before(
        sorted(set(scorer_fingerprints(config, version, encoder).values())), context.limit
    ):
        return
    run.metrics |= dict.fromkeys(("model_calls", "tokens", "engine_restarts"), 0.0)
    with context.console.spark_progress(context.engines.spark, "score"):
        size = _Size.of(context)
        vectors = vector_set(context, encoder) if config.by_neighbours and encoder else None
    fingerprints = scorer_fingerprints(config, version, vectors)
    if config.relational:
        scorers = {fingerprints[scorer.name]: scorer for scorer in config.relational}
        _score_by_spark(context, config, scorers, version, size)
    for group in model_groups(config, fingerprints):
        _score_by_model(context, config, group, size)
    for name, judge in {fingerprints[s.name]: s for s in config.by_judge}.items():
        _score_by_judge(context, judge, name, size)
    for name, k in {fingerprints[s.name]: s.neighbours for s in config.by_neighbours}.items():
        assert encoder is not None
        _score_by_neighbours(context, config, name, k, encoder, size)
    if run.rejected[OVER_BUDGET]:
        run.fingerprint = None  # not done: the next run goes on
    run.wrote("scores", "quarantine")


@dataclass(frozen=True)
class _Size:
    """How many conversations and human turns there are, each content once."""

    conversations: int
    turns: int

    @classmethod
    def of(cls, context: Context) -> _Size:
        found = contents(context).agg(F.count("*"), F.coalesce(F.sum("turns"), F.lit(0))).first()
        assert found is not None
        return cls(*map(int, found))


def _count(context: Context, scores: int, lacking: int) -> None:
    """Note that there are to be so many scores of some scorers, of which so many are lacking."""
    limited = context.limit is not None
    context.run.input += lacking if limited else scores
    context.run.known += 0 if limited else scores - lacking


def _score_by_spark(
    context: Context,
    config: ScoreConfig,
    scorers: Mapping[str, RelationalScorerConfig],
    version: str | None,
    size: _Size,
) -> None:
    """Have Spark compute the lacking scores of relational scorers, and commit them."""
    run, lake, console = context.run, context.lake, context.console
    whole = [name for name, scorer in scorers.items() if isinstance(scorer, TurnsConfig)]
    per_turn = [name for name in scorers if name not in whole]
    with lease(lake, "score-relational", run.run_id):
        writer = Writer(lake, "scores", "score relational")
        folder = lake.work_uri(run.run_id, "relational")
        with console.spark_progress(context.engines.spark, "score"):
            lacking = context.stored("relational-lacking", pending(context, per_turn, whole))
            count = lacking.count()
            done = write_rows(lake, relational_scores(context, scorers, lacking, version), folder)
            tags = [name for name, scorer in scorers.items() if isinstance(scorer, TagsConfig)]
            if tags:
                run.rejected[UNTAGGED] = untagged(context, lacking, tags[0], version).count()
        _count(context, size.conversations * len(whole) + size.turns * len(per_turn), count)
        progress = console.progress("score", done, "scores")
        chunks = read_chunks(folder, RELATIONAL_ROWS) if done else iter(())
        for _ in commit_batches(writer, chunks, run, progress, config.commit_seconds):
            pass


def _score_by_model(context: Context, config: ScoreConfig, group: ModelGroup, size: _Size) -> None:
    """Have the lacking scores of a model's scorers computed, and commit them."""
    with lease(context.lake, f"score-{group.name}", context.run.run_id):
        writer = Writer(context.lake, "scores", f"score {group.name}")
        lacking = pending(context, list(group.scorers))
        scores = size.turns * len(group.scorers)
        ask_model(context, config, group, writer, lacking, partial(_count, context, scores))


def _score_by_judge(context: Context, config: JudgeScorerConfig, scorer: str, size: _Size) -> None:
    """Have the lacking scores of a scorer judged, and commit them."""
    with lease(context.lake, f"score-{scorer}", context.run.run_id):
        writer = Writer(context.lake, "scores", f"score {scorer}")
        lacking = pending(context, [scorer])
        ask_judge(context, config, scorer, writer, lacking, partial(_count, context, size.turns))


def _score_by_neighbours(
    context: Context, config: ScoreConfig, scorer: str, k: int, encoder: str, size: _Size
) -> None:
    """Have the lacking distances to the k-th nearest conversation measured, and commit them."""
    run, console = context.run, context.console
    with lease(context.lake, f"score-{scorer}", run.run_id):
        writer = Writer(context.lake, "scores", f"score {scorer}")
        with console.spark_progress(context.engines.spark, "score"):
            lacking = context.stored(f"{scorer}-lacking", pending(context, [], [scorer]))
            count = lacking.count()
            _count(context, size.conversations, count)
            if not count:
                return
            having = vectors_of(context, encoder).select("sample_id")
            there = lacking.join(having, "sample_id", "left_semi").count()
            if there < count:
                run.rejected[NO_VECTOR] += count - there
            rows = stored_vectors(context, encoder, lacking, scorer)
        context.engines.ray()
        progress = console.progress("score", there, "scores")
        results = neighbour_rows(context, rows, scorer, k, config.replicas)
        for _ in commit_batches(writer, results, run, progress, config.commit_seconds):
            pass
