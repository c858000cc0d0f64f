"""`maintain`: few files instead of many, a checkpoint, and no file that nobody needs.

What is needed: the newest version of a table, every version that a run or an ontology version
pins, and whatever a run at work may be reading or writing. Works with delta-rs alone.

delta-rs 1.6.6 checks nothing when two compactions remove the same files: the rows are there twice
then. So only one `maintain` works on a lake at a time, and row counts are compared afterwards. It
also doubles the rows when it compacts files whose path in the log is not ASCII, as Spark writes
them for such a partition value, and does not find those of a value with `~`, `<` and the like:
these partitions are left as they are.
"""

from __future__ import annotations

import difflib
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec

from tagsieve.console import Console
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import TABLES, DataFile, Lake
from tagsieve.lease import lease, lives, read_lease
from tagsieve.ledger import new_run_id

TARGET_BYTES = 128 * 2**20
"""Files are put together up to this size."""

MIN_FILES = 8
"""A partition with fewer small files than this is left: rewriting would cost more than it saves."""

CHECKPOINT_COMMITS = 10
"""A table with fewer commits since its checkpoint needs no new one."""

MAY_LAST_HOURS = 24
"""A step marked as running that has no lease is taken to be at work for so long after its start."""

_LOST = frozenset("~<>|{}`")
"""delta-rs does not find files that Spark wrote below a partition value with one of these."""

_LEASE = "maintain"
_SETTLE_SECONDS = 1.0
"""Two that take the lease at the same moment both see, after this, whose it is."""


@dataclass
class Maintained:
    """What was done to one table, or under a dry run would be done."""

    table: str
    files_before: int
    files_after: int
    size: int
    pinned: int
    removed: int
    freed: int


def maintain(
    lake: Lake,
    tables: Sequence[str],
    console: Console,
    retention_hours: int = 168,
    unpin_days: float | None = None,
    dry_run: bool = False,
) -> list[Maintained]:
    """Compact, vacuum and checkpoint `tables` (none: all of the lake); prints what was done.

    Files that no needed version has are removed once they are `retention_hours` old, or once they
    left the table so long ago. `unpin_days` releases what runs pinned that ended longer ago.
    Raises UsageError for unknown tables, and for less than an hour while a run is at work;
    RunError when another `maintain` is at this lake, and when a table cannot be maintained.
    """
    there = lake.tables()
    names = _known(tables, there, lake) or there
    working = _at_work(lake)
    if retention_hours < 1 and working:
        raise UsageError(
            f"--retention-hours={retention_hours} could remove what {_named(working[0])} is "
            "writing; wait for it, or set --retention-hours to 1 or more"
        )
    done, failed = [], []
    with nullcontext() if dry_run else _alone(lake):
        for number, name in enumerate(names, 1):
            console.status(f"maintain: {name}, table {number} of {len(names)}")
            working = _at_work(lake)
            user = _user_of(lake, name, working)
            if user is not None:
                console.line(f"{name}: left as it is, {_named(user)} may write to it")
                continue
            hours = max([retention_hours, *(math.ceil(_age(row)) for row in working)])
            pinned = pins(lake, unpin_days).get(name, set())
            try:
                done.append(_maintain_table(lake, name, console, pinned, hours, dry_run))
            except RunError as error:  # the other tables can be maintained all the same
                console.line(str(error), style="red")
                failed.append(name)
    console.table(
        f"{'would be done' if dry_run else 'maintained'} in {lake.root}",
        ["table", "files", "files then", "size", "versions pinned", "files removed", "freed"],
        [
            [did.table, did.files_before, did.files_after, _bytes(did.size), did.pinned,
             did.removed, _bytes(did.freed)]
            for did in done
        ],
    )  # fmt: skip
    if failed:
        raise RunError(f"lake {lake.root}: not maintained, see above: {', '.join(failed)}")
    return done


def _known(tables: Sequence[str], there: Sequence[str], lake: Lake) -> list[str]:
    for name in tables:
        if name not in TABLES:
            close = difflib.get_close_matches(name, TABLES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(TABLES)}"
            raise UsageError(f"there is no table {name!r}; {hint}")
        if name not in there:
            raise UsageError(f"lake {lake.root} has no table {name} yet; it has {', '.join(there)}")
    return list(dict.fromkeys(tables))


def _maintain_table(
    lake: Lake, name: str, console: Console, pinned: set[int], hours: int, dry_run: bool
) -> Maintained:
    before = lake.files(name)
    plan = plan_compaction(before)
    for partition in plan.unsafe:
        told = ", ".join(f"{column}={value}" for column, value in partition.items())
        console.line(
            f"{name}: {told} is not compacted: delta-rs cannot, with that name", style="yellow"
        )
    after, size = len(before) - sum(plan.saved), sum(file.size for file in before)
    if not dry_run:
        if not lake.keeps_log(name):
            lake.keep_log(name)
            console.line(f"{name}: the log of old versions is kept from now on")
        for partition in plan.partitions:
            lake.compact(name, partition, TARGET_BYTES)
        compacted = lake.files(name)
        after, size = len(compacted), sum(file.size for file in compacted)
    removed = lake.vacuum(name, hours, pinned, dry_run)
    if not dry_run:
        lake.checkpoint(name, CHECKPOINT_COMMITS)
    freed = sum(removed.values())
    return Maintained(name, len(before), after, size, len(pinned), len(removed), freed)


# --- what is needed --------------------------------------------------------------------------


def pins(lake: Lake, unpin_days: float | None = None) -> dict[str, set[int]]:
    """The versions of each table that runs (done or running), ontology versions and their newest
    updates name.

    Runs that ended more than `unpin_days` ago pin nothing; what made an ontology version that is
    still there stays pinned.
    """
    pinned: dict[str, set[int]] = defaultdict(set)

    def pin(versions: Any) -> None:
        for table, version in dict(versions or []).items():
            if version >= 0:  # -1: the table was not there
                pinned[table].add(version)

    now = datetime.now(UTC)
    columns = ["status", "ended", "read", "written"]
    for row in lake.arrow("runs", columns).to_pylist():
        ended = row["ended"]
        old = unpin_days is not None and ended and now - ended > timedelta(days=unpin_days)
        if row["status"] in ("done", "running") and not old:
            pin(row["read"])
            pin(row["written"])
    for name, table in TABLES.items():
        if "read_versions" in table.schema.names and name != "ontology_updates":
            for row in lake.arrow(name, ["read_versions"]).to_pylist():
                pin(row["read_versions"])
    for reads in _read_by_updates(lake):
        pin(reads)
    return pinned


def _read_by_updates(lake: Lake) -> Iterator[Any]:
    """What the last two updates of each ontology version read: a next one counts from there, and
    one that was cut off is done again from the one before."""
    by_version: dict[str, list[dict[str, Any]]] = defaultdict(list)
    columns = ["version", "update", "read_versions"]
    for row in lake.arrow("ontology_updates", columns).sort_by("update").to_pylist():
        by_version[row["version"]].append(row)
    for rows in by_version.values():
        yield from (row["read_versions"] for row in rows[-2:])


@dataclass
class Compaction:
    """`partitions` to compact, the files `saved` in each, and those that are `unsafe` to."""

    partitions: list[dict[str, str]]
    saved: list[int]
    unsafe: list[dict[str, str]]


def plan_compaction(files: Iterable[DataFile]) -> Compaction:
    """Which partitions have enough small files that fit together."""
    by_partition: dict[tuple[tuple[str, str], ...], list[DataFile]] = defaultdict(list)
    for file in files:
        by_partition[tuple(file.partition.items())].append(file)
    plan = Compaction([], [], [])
    for key, members in by_partition.items():
        small = [file.size for file in members if file.size < TARGET_BYTES]
        saved = len(small) - _bins(small)
        if len(small) < MIN_FILES or not saved:
            continue
        lost = _LOST.intersection("".join(value for _, value in key))
        if not lost and all(file.path.isascii() for file in members):
            plan.partitions.append(dict(key))
            plan.saved.append(saved)
        else:
            plan.unsafe.append(dict(key))
    return plan


def _bins(sizes: Iterable[int]) -> int:
    bins, room = 0, 0
    for size in sizes:
        if size > room:
            bins, room = bins + 1, TARGET_BYTES
        room -= size
    return bins


# --- who is at work ----------------------------------------------------------------------------


def _leases(lake: Lake) -> dict[str, dict[str, Any]]:
    """What the lease files say, by the name of the lease."""
    files, folder = fsspec.core.url_to_fs(f"{lake.root.rstrip('/')}/_leases")
    found = {}
    for place in files.glob(f"{folder}/*.json"):
        held = read_lease(files, place)
        if held is not None:
            found[place.rsplit("/", 1)[-1].removesuffix(".json")] = held
    return found


def _at_work(lake: Lake) -> list[dict[str, Any]]:
    """Rows of `runs` marked as running, of runs that are alive as far as one can know.

    Alive: its lease lives. Most steps on Spark hold none, and are believed for a day.
    """
    columns = ["run_id", "step", "status", "started", "recipe"]
    rows = lake.arrow("runs", columns, [("status", "=", "running")]).to_pylist()
    alive: dict[str, bool] = {}
    for held in _leases(lake).values() if rows else ():
        alive[held["run_id"]] = alive.get(held["run_id"], False) or lives(held)
    return [row for row in rows if alive.get(row["run_id"], _age(row) < MAY_LAST_HOURS)]


def _age(row: dict[str, Any]) -> float:
    """Hours since a step's start."""
    return float((datetime.now(UTC) - row["started"]).total_seconds() / 3600)


def _named(row: dict[str, Any]) -> str:
    return f"run {row['run_id']} (step {row['step']}, since {row['started']:%Y-%m-%d %H:%M} UTC)"


def _user_of(lake: Lake, name: str, working: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The step at work, if any, that the maintenance of this table could make fail.

    Appends of delta-rs go together with a compaction, but not with a changed table property;
    `Lake.upsert` tries again after both. A MERGE or overwrite of Spark fails when the files it read
    are gone; and on S3 neither it nor delta-rs sees the other's commit.
    """
    for row in working if name != "runs" else ():
        appends = name == "raw_tags" and row["step"] in ("tag", "replay")
        if not appends or not lake.keeps_log(name):
            return row
    return None


@contextmanager
def _alone(lake: Lake) -> Iterator[None]:
    """Hold the lease of `maintain`; RunError when another has it."""
    run_id = new_run_id()
    with lease(lake, _LEASE, run_id):
        held = None
        while held is None:  # not written yet, or just being renewed
            time.sleep(_SETTLE_SECONDS)
            held = _leases(lake).get(_LEASE)
        if held["run_id"] != run_id:
            raise RunError(f"lake {lake.root}: another maintain has just started; let it end")
        yield


def _bytes(count: int) -> str:
    """`512 B`, `3.4 KB`, `1.2 GB`."""
    size, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
