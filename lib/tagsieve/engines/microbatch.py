"""The commit loop of all steps whose rows come from models: one Delta transaction a micro-batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagsieve.console import Progress
from tagsieve.lake import PAYLOAD_BYTES, TABLES, Lake, rows_table
from tagsieve.ledger import StepRun

FAILURE = pa.struct(
    [
        ("key", pa.string()),
        ("reason", pa.string()),
        ("error", pa.string()),
        ("payload", pa.binary()),
    ]
)
"""What an actor says of a row that it could not do; null for the others."""

COMMIT_BYTES = 16 * 2**20
"""Rows of this many bytes are committed whatever the settings say: they wait in memory."""

SHARE = 0.1
"""Commits come often at first, then ever less: what waits is at most this share of the time so far,
which leaves a short run little to lose and a long one few files."""

FIRST_SECONDS = 5.0


def failure(owner: str, row_id: str, reason: str, error: str, payload: str) -> dict[str, Any]:
    """A row that could not be done, of the type `FAILURE`."""
    return {
        "key": quarantine_key(owner, row_id),
        "reason": reason,
        "error": error[:2000],
        "payload": payload.encode("utf-8", "surrogatepass"),
    }


def quarantine_key(owner: str, row_id: str) -> str:
    """What a row is called in `quarantine`; `owner`: the fingerprint of what could not do it."""
    return f"{owner} {row_id}"


@dataclass
class Writer:
    """Appends to a model-made table and to `quarantine`, as the only one that does for `owner`.

    Made before the step reads what is done already: whoever commits for the same owner after that
    makes the next commit here fail, instead of repeating rows.
    """

    lake: Lake
    table: str
    owner: str
    _commits: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._commits = {
            name: self.lake.commits_of(name, self.owner) for name in (self.table, "quarantine")
        }

    def append(self, name: str, rows: pa.Table) -> None:
        """One commit. Raises RunError when another run has committed for this owner."""
        self._commits[name] = self.lake.append_next(name, rows, self.owner, self._commits[name])


def commit_batches(
    writer: Writer,
    results: Iterator[pa.Table],
    run: StepRun,
    progress: Progress,
    commit_seconds: float,
    commit_rows: int | None = None,
) -> Iterator[pa.Table]:
    """Append `results` to the writer's table as they come; gives the rows of each commit once they
    are in the table.

    `results` have the columns of the table and `failure` (of type `FAILURE`): a row with a failure
    goes to `quarantine` instead. A commit is due after `commit_seconds`, earlier in the first
    minutes (`SHARE`), at `commit_rows` rows and at `COMMIT_BYTES`. Counts kept and quarantined
    rows, and the metrics `commits` and `rows_per_second` (from the first batch on, so without
    starting the models). A killed run leaves whole micro-batches; what was under way is done again
    by the next run, whose anti-join does not find it.
    """
    waiting: list[pa.Table] = []
    commits, done, skipped = 0, 0, 0
    began = since = first = last = time.monotonic()
    for batch in results:
        if not done:
            first, skipped = time.monotonic(), batch.num_rows
        done += batch.num_rows
        last = time.monotonic()
        waiting.append(batch)
        progress.advance(batch.num_rows)
        patience = min(commit_seconds, max(FIRST_SECONDS, SHARE * (last - began)))
        rows = sum(b.num_rows for b in waiting)
        full = (commit_rows and rows >= commit_rows) or _bytes(waiting) >= COMMIT_BYTES
        if full or last - since >= patience:
            commits += 1
            yield _commit(writer, waiting, run)
            waiting, since = [], time.monotonic()
    if waiting:
        commits += 1
        yield _commit(writer, waiting, run)
    run.metrics["commits"] = run.metrics.get("commits", 0) + commits
    if done > skipped:
        run.metrics["rows_per_second"] = round((done - skipped) / (last - first), 1)


def _bytes(batches: list[pa.Table]) -> int:
    return sum(batch.nbytes for batch in batches)


def _commit(writer: Writer, batches: list[pa.Table], run: StepRun) -> pa.Table:
    rows = pa.concat_tables(batches)
    failure = rows["failure"].combine_chunks()
    failed = failure.drop_null().to_pylist()
    good = rows.select(TABLES[writer.table].schema.names)
    if failed:
        good = good.filter(pc.is_null(failure))
        # Before the others: a run killed in between has no row twice, and none that is lost.
        writer.append("quarantine", _quarantined(failed, run))
        run.quarantined.update(Counter(row["reason"] for row in failed))
    if good.num_rows:
        writer.append(writer.table, good)
        run.kept += good.num_rows
    return good


def _quarantined(failed: list[dict[str, Any]], run: StepRun) -> pa.Table:
    told = {"run_id": run.run_id, "step": run.step}
    return rows_table(
        "quarantine",
        (row | told | {"payload": row["payload"][:PAYLOAD_BYTES]} for row in failed),
    )
