"""The commit loop of all steps whose rows come from models: one Delta transaction a micro-batch."""

from __future__ import annotations

import time
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
    committed, since = 0, time.monotonic()
    first = last = time.monotonic()
    done = 0

    def commit() -> None:
        nonlocal committed, since
        batch = pa.concat_tables(waiting)
        committed += 1
        lake.append_once(table, batch, run.run_id, committed)
        run.kept += batch.num_rows
        waiting.clear()
        since = time.monotonic()

    try:
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            if not done:
                first, skipped = time.monotonic(), batch.num_rows
            done += batch.num_rows
            last = time.monotonic()
            waiting.append(batch)
            progress.advance(batch.num_rows)
            if sum(b.num_rows for b in waiting) >= commit_rows or last - since >= commit_seconds:
                commit()
    except RayError as error:
        raise RunError(f"{run.step}: the actors stopped: {error}") from error
    if waiting:
        commit()
    metrics = {"commits": float(committed)}
    if done > skipped:
        metrics["rows_per_second"] = round((done - skipped) / (last - first), 1)
    return metrics
