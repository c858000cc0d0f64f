"""Having lacking scores computed by a model or a judge, and committed."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.actors import ActorPool
from tagsieve.engines.context import Context
from tagsieve.engines.handover import read_chunks
from tagsieve.engines.microbatch import Writer, commit_batches
from tagsieve.engines.pending import do_pending
from tagsieve.scoring.config import JudgeScorerConfig, ScoreConfig
from tagsieve.scoring.judging import judges_of
from tagsieve.scoring.losses import needs_earlier
from tagsieve.scoring.scorers import ModelGroup, actors_of
from tagsieve.scoring.work import with_texts


def ask_model(
    context: Context,
    config: ScoreConfig,
    group: ModelGroup,
    writer: Writer,
    lacking: DataFrame,
    found: Callable[[int], None] = lambda count: None,  # noqa: ARG005
) -> int:
    """Have the scores in `lacking` (`sample_id`, `turn`, `scorer`) of a model's scorers computed
    and committed; gives how many there were. `found` is told so while the model loads."""
    run, console = context.run, context.console
    earlier = any(map(needs_earlier, group.scorers.values()))
    context.engines.ray()
    actors = actors_of(config, group, run.run_id, context.engines.ray_config)
    pool = ActorPool(actors)
    try:
        # The model loads while Spark looks for the work.
        pool.start()
        with console.spark_progress(context.engines.spark, "score"):
            turns = context.stored(group.name, with_texts(context, lacking, earlier))
            total = turns.agg(F.coalesce(F.sum(F.size("scorers")), F.lit(0))).first()
            count = int(total[0]) if total else 0
        found(count)
        if count:
            folder = context.lake.work_uri(run.run_id, group.name)
            progress = console.progress("score", count, "scores")
            results = pool.map(read_chunks(folder, actors.chunk_rows), progress.show)
            for _ in commit_batches(writer, results, run, progress, config.commit_seconds):
                pass
    finally:
        pool.stop()
        for name, value in {**pool.counted, "engine_restarts": pool.restarts}.items():
            run.metrics[name] = run.metrics.get(name, 0.0) + value
        run.metrics[f"start_seconds_{group.name}"] = pool.start_seconds
    return count


def ask_judge(
    context: Context,
    config: JudgeScorerConfig,
    scorer: str,
    writer: Writer,
    lacking: DataFrame,
    found: Callable[[int], None] = lambda count: None,  # noqa: ARG005
) -> int:
    """Have the scores in `lacking` of one scorer judged and committed; gives how many there were.
    What its budget leaves over is counted as rejected."""
    context.engines.ray()
    judges = judges_of(config, scorer, context.run.run_id, context.engines.ray_config)
    turns = with_texts(context, lacking, earlier=False)
    return do_pending(context, judges, config.engine, writer, turns, "scores", found)
