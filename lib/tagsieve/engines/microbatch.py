"""The commit loop of all steps whose rows come from models: one Delta transaction a micro-batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tagsieve.console import Progress
from tagsieve.errors import RunError
from tagsieve.lake import PAYLOAD_BYTES, TABLES, Lake, rows_table
from tagsieve.ledger import StepRun

if TYPE_CHECKING:
    import ray.data

FAILURE = pa.struct(
    [
        ("key", pa.string()),
        ("reason", pa.string()),
        ("error", pa.string()),
        ("payload", pa.binary()),
    ]
)
"""What an actor says of a row that it could not do; null for the others."""


def commit_batches(
    lake: Lake,
    table: str,
    rows: ray.data.Dataset,
    run: StepRun,
    progress: Progress,
    commit_rows: int,
    commit_seconds: float,
) -> Iterator[pa.Table]:
    """Append `rows` to `table` as they come, at least every `commit_rows` rows or `commit_seconds`;
    gives the rows of each commit once they are in the table.

    `rows` has the columns of `table` and `failure` (of type `FAILURE`): a row with a failure goes
    to `quarantine` instead. Counts kept and quarantined rows, and the metrics `commits` and
    `rows_per_second` (from the first batch on, so without starting the models). A killed run leaves
    whole micro-batches; what was under way is done again by the next run, whose anti-join does not
    find it. Raises RunError when the actors keep dying.
    """
    from ray.exceptions import RayError

    waiting: list[pa.Table] = []
    commits, done, skipped = 0, 0, 0
    since = first = last = time.monotonic()
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
                    commits += 1
                    yield _commit(lake, table, waiting, run, commits)
                    waiting, since = [], time.monotonic()
    except RayError as error:
        raise RunError(f"{run.step}: the actors stopped: {error}") from error
    if waiting:
        commits += 1
        yield _commit(lake, table, waiting, run, commits)
    run.metrics["commits"] = float(commits)
    if done > skipped:
        run.metrics["rows_per_second"] = round((done - skipped) / (last - first), 1)


def _commit(lake: Lake, table: str, batches: list[pa.Table], run: StepRun, number: int) -> pa.Table:
    rows = pa.concat_tables(batches)
    failure = rows["failure"].combine_chunks()
    failed = rows.filter(pc.is_valid(failure))["failure"].to_pylist()
    good = rows.filter(pc.is_null(failure)).select(TABLES[table].schema.names)
    if failed:
        # Before the others: a run killed in between has no row twice, and none that is lost.
        lake.append_once("quarantine", _quarantined(failed, run), run.run_id, number)
        run.quarantined.update(Counter(row["reason"] for row in failed))
    if good.num_rows:
        lake.append_once(table, good, run.run_id, number)
        run.kept += good.num_rows
    return good


def _quarantined(failed: list[dict[str, Any]], run: StepRun) -> pa.Table:
    told = {"run_id": run.run_id, "step": run.step}
    return rows_table(
        "quarantine",
        (row | told | {"payload": row["payload"][:PAYLOAD_BYTES]} for row in failed),
    )
