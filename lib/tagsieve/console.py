"""What a person sees while a command runs: lines, tables and progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is written where there is no terminal to redraw."""


WIDTH_OF_FILES = 120
"""Columns of tables where there is no terminal to ask."""


def duration(seconds: float) -> str:
    """`7 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Counts done items of a known total, and shows rate and time left.

    The rate is that since the first items came: what was waited for them is the engines' start.
    """

    def __init__(self, console: Console, label: str, total: int, unit: str) -> None:
        self._console, self._label, self._total, self._unit = console, label, total, unit
        self._done = self._first = 0
        self._started = self._shown = time.monotonic()

    def advance(self, count: int, told: str = "") -> None:
        """Count `count` more items as done; `told`: what is said of them behind the time left."""
        now = time.monotonic()
        if not self._done:
            self._first, self._started = count, now
        self._done += count
        self.show(self.text(now) + told)

    def show(self, text: str) -> None:
        """Show `text`, unless something was shown a moment ago."""
        now = time.monotonic()
        if now - self._shown >= (0.5 if self._console.live else SECONDS_BETWEEN_LINES):
            self._shown = now
            self._console.status(text)

    def text(self, now: float) -> str:
        """The progress line as of `now` (of time.monotonic)."""
        text = f"{self._label}: {self._done:,} of {self._total:,} {self._unit}"
        since = self._done - self._first
        if not since:
            return text
        rate = since / max(now - self._started, 1e-9)
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        return f"{text}, {shown}/s, {duration((self._total - self._done) / rate)} left"


class Console:
    """Writes for a person: to a terminal with a redrawn status line, elsewhere plain lines."""

    def __init__(self, quiet: bool = False) -> None:
        # Text may come from the data: neither [markup] nor :emoji: is read in it.
        self._out = RichConsole(
            quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        if not self._out.is_terminal:
            self._out.width = WIDTH_OF_FILES
        self._status_length = 0

    @property
    def live(self) -> bool:
        """Whether lines can be redrawn."""
        return self._out.is_terminal

    def line(self, text: str = "", style: str | None = None) -> None:
        """One line of plain text."""
        self._clear()
        self._out.print(text, style=style)

    def status(self, text: str) -> None:
        """A line that the next one replaces, on a terminal; a line like any other elsewhere."""
        if not self.live:
            self._out.print(f"  {text}")
            return
        self._clear()
        text = text[: max(self._out.width - 1, 20)]
        self._out.file.write(text)
        self._out.file.flush()
        self._status_length = len(text)

    def _clear(self) -> None:
        if self._status_length:
            self._out.file.write("\r\x1b[2K")
            self._status_length = 0

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; numbers are set right with thousands separators."""
        self._clear()
        table = RichTable(title=title, title_justify="left", title_style="bold")
        for position, name in enumerate(columns):
            numeric = any(isinstance(row[position], int | float) for row in rows)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self._out.print(table)

    def progress(self, label: str, total: int, unit: str) -> Progress:
        """Progress of `total` items, `unit` in the plural."""
        return Progress(self, label, total, unit)

    @contextmanager
    def spark_progress(self, spark: SparkSession, label: str) -> Iterator[None]:
        """Show the tasks of Spark's active stages, with the time spent, while the block runs."""
        stop = threading.Event()
        started = time.monotonic()
        tracker = spark.sparkContext.statusTracker()

        def watch() -> None:
            while not stop.wait(1.0 if self.live else SECONDS_BETWEEN_LINES):
                stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
                running = [stage for stage in stages if stage is not None]
                done = sum(stage.numCompletedTasks for stage in running)
                tasks = sum(stage.numTasks for stage in running)
                spent = duration(time.monotonic() - started)
                work = f"{done} of {tasks} tasks" if running else "planning"
                self.status(f"{label}: {work}, {spent}")

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self._clear()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)
