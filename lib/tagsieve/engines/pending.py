"""Rows that a model has yet to do: found by Spark, done by Ray actors, committed by the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from tagsieve.engines.actors import NOT_ASKED, ActorPool, ActorSpec
from tagsieve.engines.config import CommitConfig
from tagsieve.engines.context import Context
from tagsieve.engines.handover import read_chunks, write_rows
from tagsieve.engines.microbatch import Writer, commit_batches
from tagsieve.ledger import StepRun

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

OVER_BUDGET = "over_budget"
"""Rows left for a later run because the budget is spent: counted as rejected, stored nowhere."""


def do_pending(
    context: Context,
    spec: ActorSpec,
    commits: CommitConfig,
    writer: Writer,
    pending: DataFrame,
    unit: str,
    found: Callable[[int], None] = lambda count: None,  # noqa: ARG005
    committed: Callable[[pa.Table], None] = lambda rows: None,  # noqa: ARG005
) -> int:
    """Have the rows of `pending` done by actors, and commit what they give; gives how many rows
    there were.

    `found` is told their number while the models load; `committed` gets the rows of each commit.
    Counts in the step's run what was kept, quarantined or left for a budget, adds up what the
    actors counted and how they started. `unit`: what the rows are, in the plural.
    """
    run = context.run
    before = run.kept + run.quarantined.total()
    with started(spec, run) as pool:
        count = do_rows(context, pool, commits, writer, pending, unit, found, committed)
    if pool.counted.get(NOT_ASKED):
        run.rejected[OVER_BUDGET] += count - (run.kept + run.quarantined.total() - before)
    return count


@contextmanager
def started(
    spec: ActorSpec, run: StepRun, counted: Mapping[str, float] | None = None
) -> Iterator[ActorPool]:
    """Actors that load their models while the block looks for work, ended with it; what they
    counted and how they started is added to the metrics of `run`. `counted`: what earlier actors
    have, where both share a budget."""
    pool = ActorPool(spec)
    pool.counted |= counted or {}
    try:
        pool.start()
        yield pool
    finally:
        pool.stop()
        shown = {name: value for name, value in pool.counted.items() if name != NOT_ASKED}
        shown |= {
            "engine_start_seconds": pool.start_seconds,
            "engine_restarts": float(pool.restarts),
        }
        for name, value in ({"model_calls": 0.0} | shown).items():
            run.metrics[name] = run.metrics.get(name, 0.0) + value


def do_rows(
    context: Context,
    pool: ActorPool,
    commits: CommitConfig,
    writer: Writer,
    pending: DataFrame,
    unit: str,
    found: Callable[[int], None] = lambda count: None,  # noqa: ARG005
    committed: Callable[[pa.Table], None] = lambda rows: None,  # noqa: ARG005
) -> int:
    """As `do_pending`, by actors that are started already, and may be asked more than once."""
    run, lake, console, spec = context.run, context.lake, context.console, pool.spec
    folder = lake.work_uri(run.run_id, writer.owner.replace(" ", "-"))
    with console.spark_progress(context.engines.spark, spec.label):
        count = write_rows(lake, pending, folder)
        found(count)
    if not count:  # nobody waits for the models then
        return 0
    progress = console.progress(spec.label, count, unit)
    results = pool.map(read_chunks(folder, spec.chunk_rows), progress.show)
    commit_rows = spec.rows_per_commit(commits.commit_rows)
    for rows in commit_batches(writer, results, run, progress, commits.commit_seconds, commit_rows):
        committed(rows)
    return count
