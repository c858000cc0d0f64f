"""The commit loop of all steps whose rows come from models: one Delta transaction a micro-batch."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pyarrow as pa

from tagsieve.console import Progress
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.ledger import StepRun

if TYPE_CHECKING:
    import ray.data


def commit_batches(
    lake: Lake,
    table: str,
    rows: ray.data.Dataset,
    run: StepRun,
    progress: Progress,
    commit_rows: int,
    commit_seconds: float,
) -> dict[str, float]:
    """Append `rows` to `table` as they come, at least every `commit_rows` rows or `commit_seconds`.

    Counts each committed row as kept. A killed run leaves whole micro-batches; what was under way
    is done again by the next run, whose anti-join does not find it. Gives the metrics `commits`
    and `rows_per_second` (from the first batch on, so without starting the models). Raises
    RunError when the actors keep dying.
    """
    from ray.exceptions import RayError

    waiting: list[pa.Table] = []
    committed, done, skipped = 0, 0, 0
    since = first = last = time.monotonic()

    def commit() -> None:
        nonlocal committed, since
        batch = pa.concat_tables(waiting)
        committed += 1
        lake.append_once(table, batch, run.run_id, committed)
        run.kept += batch.num_rows
        waiting.clear()
        since = time.monotonic()

    batches = iter(rows.iter_batches(batch_size=None, batch_format="pyarrow"))
    try:
        # Closed on every path: an iterator left open keeps its actors, and their cores.
        with closing(batches):
            for batch in batches:
                if not done:
                    first, skipped = time.monotonic(), batch.num_rows
                done += batch.num_rows
                last = time.monotonic()
                waiting.append(batch)
                progress.advance(batch.num_rows)
                full = sum(b.num_rows for b in waiting) >= commit_rows
                if full or last - since >= commit_seconds:
                    commit()
    except RayError as error:
        raise RunError(f"{run.step}: the actors stopped: {error}") from error
    if waiting:
        commit()
    metrics = {"commits": float(committed)}
    if done > skipped:
        metrics["rows_per_second"] = round((done - skipped) / (last - first), 1)
    return metrics
