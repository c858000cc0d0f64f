"""The score step: contents without scores of these scorers in, `scores` out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import functions as F

from tagsieve.engines.actors import ActorPool
from tagsieve.engines.context import Context
from tagsieve.engines.handover import read_chunks, write_rows
from tagsieve.engines.microbatch import Writer, commit_batches
from tagsieve.lease import lease
from tagsieve.scoring.config import (
    RelationalScorerConfig,
    ScoreConfig,
    TagsConfig,
    TurnsConfig,
)
from tagsieve.scoring.losses import needs_earlier
from tagsieve.scoring.relational import relational_scores, untagged
from tagsieve.scoring.scorers import ModelGroup, actors_of, model_groups, scorer_fingerprints
from tagsieve.scoring.work import contents, pending, with_texts

UNTAGGED = "untagged"
"""Turns whose tags are not counted because they have none: rejected, stored nowhere, and counted by
a later run that finds them tagged."""

RELATIONAL_ROWS = 2**16


def score(context: Context, config: ScoreConfig, version: str | None = None) -> None:
    """Score every human turn of every content, or the whole of it, by each scorer that has no row
    for it yet, in `scores` or in quarantine.

    `version`: the ontology version whose tags are counted; needed by a scorer of kind tags alone.
    Spark computes what is relational; for the rest it hands turns over as Parquet, Ray actors (one
    kind for each model) score chunks of them. The driver commits micro-batches of both, and holds
    one of them and the chunks at the actors at a time. A content in several pools is scored once.
    What cannot be scored goes to quarantine. One run at a time works with a model, one at a time
    at what is relational; RunError for the second.
    """
    run = context.run
    run.unit = "score"
    tagged = any(isinstance(scorer, TagsConfig) for scorer in config.scorers)
    run.reads("samples", *(["tags"] if tagged else []))
    fingerprints = scorer_fingerprints(config, version)
    if run.done_before(sorted(set(fingerprints.values())), context.limit):
        return
    run.metrics |= dict.fromkeys(("model_calls", "tokens", "engine_restarts"), 0.0)
    with context.console.spark_progress(context.engines.spark, "score"):
        size = _Size.of(context)
    if config.relational:
        scorers = {fingerprints[scorer.name]: scorer for scorer in config.relational}
        _score_by_spark(context, config, scorers, version, size)
    for group in model_groups(config, fingerprints):
        _score_by_model(context, config, group, size)
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
    run, lake, console = context.run, context.lake, context.console
    earlier = any(map(needs_earlier, group.scorers.values()))
    with lease(lake, f"score-{group.name}", run.run_id):
        writer = Writer(lake, "scores", f"score {group.name}")
        context.engines.ray()
        actors = actors_of(config, group, run.run_id, context.engines.ray_config)
        pool = ActorPool(actors)
        try:
            # The model loads while Spark looks for the work.
            pool.start()
            with console.spark_progress(context.engines.spark, "score"):
                lacking = pending(context, list(group.scorers))
                turns = context.stored(group.name, with_texts(context, lacking, earlier))
                found = turns.agg(F.coalesce(F.sum(F.size("scorers")), F.lit(0))).first()
                count = int(found[0]) if found else 0
            _count(context, size.turns * len(group.scorers), count)
            if count:
                folder = lake.work_uri(run.run_id, group.name)
                progress = console.progress("score", count, "scores")
                results = pool.map(read_chunks(folder, actors.chunk_rows), progress.show)
                for _ in commit_batches(writer, results, run, progress, config.commit_seconds):
                    pass
        finally:
            pool.stop()
            for name, value in {**pool.counted, "engine_restarts": pool.restarts}.items():
                run.metrics[name] += value
            run.metrics[f"start_seconds_{group.name}"] = pool.start_seconds
