"""What the commands of this folder do alike: figures from tables, told three ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fsspec

from tagsieve.console import Console
from tagsieve.engines.context import Context, Engines
from tagsieve.lake import Lake, check_scheme
from tagsieve.ledger import StepRun, new_run_id
from tagsieve.page import make_folder, write_json

Figures = dict[str, Any]


def run_command(
    name: str,
    lake: Lake,
    engines: Engines,
    console: Console,
    out: str,
    tables: Sequence[str],
    find: Callable[[Context], Figures],
    write: Callable[[Any, str, Mapping[str, Any]], None],
    show: Callable[[Console, Mapping[str, Any]], None],
) -> None:
    """Find figures in `tables` as they are now, write the page `out` (`write`, with an fsspec file
    system and a path) and the figures beside it as JSON, and `show` them in the terminal.

    Writes nothing to the lake. Raises, before it looks for anything, RunError where the folder of
    `out` cannot be made, UsageError for a URI that cannot be reached.
    """
    check_scheme("--out", out)
    files, path = fsspec.core.url_to_fs(out)
    make_folder("--out", files, path)
    run = StepRun(lake, new_run_id(), name)
    run.reads(*tables)
    with lake.working(run.run_id), console.spark_progress(engines.spark, name):
        found = find(Context(lake, engines, run, console))
    beside = f"{path.removesuffix('.html')}.json"
    write_json("--out", files, beside, found)
    write(files, path, found)
    show(console, found)
    console.line(f"page     {path}")
    console.line(f"figures  {beside}")
