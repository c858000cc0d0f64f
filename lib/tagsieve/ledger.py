"""The run ledger: for every step of every run, input = kept + known + rejected + quarantined.

`known` rows were done by an earlier run, `rejected` ones are in `rejects` (or counted under a
reason that needs no row, such as `not_selected`), `quarantined` ones in `quarantine`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil

from tagsieve.errors import RunError, TagsieveError, noted_on
from tagsieve.lake import Lake, rows_table

ANY_RUN = "*"
"""For steps whose output stays beside that of other runs."""


def new_run_id() -> str:
    """A run id that sorts by time: `20261124T034412-9f2c`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def fingerprint(*parts: Any) -> str:
    """16 hex digits over the canonical JSON of `parts`; TypeError for a value without one."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class StepRun:
    """What one step of one run did; a step fills it in, `record_step` checks and stores it."""

    lake: Lake
    run_id: str
    step: str
    unit: str = "row"
    input: int = 0
    kept: int = 0
    known: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    read: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    fingerprint: str | None = None

    def reads(self, *tables: str) -> None:
        """Pin the newest version of each table (-1: not there yet) as what this step reads."""
        for name in tables:
            version = self.lake.version(name)
            self.read[name] = -1 if version is None else version

    def wrote(self, *tables: str) -> None:
        """Note the version that each table has after this step's commit."""
        for name in tables:
            version = self.lake.version(name)
            if version is not None:
                self.written[name] = version

    def add(self, part: StepRun) -> None:
        """Add what a part of the step counted in a run of its own."""
        self.input += part.input
        self.known += part.known
        self.kept += part.kept
        self.rejected.update(part.rejected)
        self.quarantined.update(part.quarantined)
        for name, value in part.metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value

    def done_before(self, *identity: Any, output_of: str | None = ANY_RUN) -> bool:
        """Whether an earlier run did this step with the same identity and the same input.

        `identity` is what decides the step's output: its config, and whatever else it depends on;
        the pinned versions of the tables it reads are added. If so, the ledger says that all of
        the input is known, and the step has nothing to do. A step whose output replaces that of
        other runs names the run whose output is there now (None: there is none), and only that run
        counts.
        """
        self.fingerprint = fingerprint(self.step, self.read, *identity)
        earlier = [
            row
            for row in self.lake.arrow("runs", filters=[("step", "=", self.step)]).to_pylist()
            if row["status"] == "done"
            and row["fingerprint"] == self.fingerprint
            and output_of in (ANY_RUN, row["run_id"])
        ]
        if not earlier:
            return False
        newest = max(earlier, key=lambda row: row["started"])
        self.input = self.known = newest["input"]
        self.metrics = {"from_earlier_run": 1.0}
        return True

    def check(self) -> None:
        """Raise RunError unless every row of the input is accounted for, once."""
        rejected, quarantined = self.rejected.total(), self.quarantined.total()
        counts = {"input": self.input, "kept": self.kept, "known": self.known}
        counts |= {f"rejected {reason}": count for reason, count in self.rejected.items()}
        counts |= {f"quarantined {reason}": count for reason, count in self.quarantined.items()}
        negative = [f"{name} {count}" for name, count in counts.items() if count < 0]
        if negative:
            raise RunError(
                f"ledger of {self.step} counts fewer than no rows: {', '.join(negative)}. Rows "
                f"were counted twice: please report this run ({self.run_id})"
            )
        if self.input != self.kept + self.known + rejected + quarantined:
            raise RunError(
                f"ledger of {self.step} does not balance: input {self.input} is not kept "
                f"{self.kept} + known {self.known} + rejected {rejected} + quarantined "
                f"{quarantined}. Rows were lost or counted twice: please report this run "
                f"({self.run_id})"
            )


@contextmanager
def record_step(lake: Lake, run_id: str, step: str, recipe: str) -> Iterator[StepRun]:
    """Record one step: a `running` row at once, then `done` or `failed` with what happened.

    `recipe` is the resolved recipe as JSON. Time and peak memory (of this process and all below
    it) go into the metrics. Raises RunError when the step leaves an unbalanced ledger.
    """
    run = StepRun(lake, run_id, step)
    started = datetime.now(UTC)
    row = {"run_id": run_id, "step": step, "recipe": recipe, "started": started}
    lake.upsert("runs", rows_table("runs", [row | {"status": "running", "unit": run.unit}]))
    clock = time.monotonic()

    def close(status: str, error: str | None = None) -> None:
        run.metrics["seconds"] = round(time.monotonic() - clock, 3)
        run.metrics["peak_memory_mb"] = round(memory.stop() / 2**20, 1)
        closing = row | {
            "status": status,
            "unit": run.unit,
            "ended": datetime.now(UTC),
            "input": run.input,
            "kept": run.kept,
            "known": run.known,
            "rejected": dict(run.rejected),
            "quarantined": dict(run.quarantined),
            "read": run.read,
            "written": run.written,
            "metrics": run.metrics,
            "fingerprint": run.fingerprint,
            "error": error,
        }
        lake.upsert("runs", rows_table("runs", [closing]))

    with PeakMemory() as memory:
        try:
            yield run
            run.check()
        except BaseException as failure:
            ours = isinstance(failure, TagsieveError)
            with noted_on(failure):
                close("failed", str(failure) if ours else f"{type(failure).__name__}: {failure}")
            raise
        close("done")


class PeakMemory:
    """The most memory that this process and all below it held at once, in bytes, sampled.

    Private memory of each process plus the largest shared part (forked workers and Ray's object
    store share pages, which a plain sum of resident sizes would count many times).
    """

    def __init__(self, seconds: float = 0.5) -> None:
        self._seconds = seconds
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """End sampling; gives the peak in bytes."""
        self._stop.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        me = psutil.Process()
        while True:
            private, shared = 0, 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    used = process.memory_info()
                except psutil.Error:  # it ended between listing and reading
                    continue
                common = getattr(used, "shared", 0)
                private += used.rss - common
                shared = max(shared, common)
            self._peak = max(self._peak, private + shared)
            if self._stop.wait(self._seconds):
                return
