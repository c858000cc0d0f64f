"""The export step: a selection or mixtures as training files, `dataset_info.json` and a card."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

import fsspec
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

import tagsieve
from tagsieve.engines.context import Context
from tagsieve.engines.rejects import rejected
from tagsieve.errors import RunError
from tagsieve.page import RUN_NOTE, noted_in
from tagsieve.reporting.config import ExportConfig, ExportFormat

ROWS_PER_FILE = 100_000
_TURN_NAMES = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}


def export(
    context: Context,
    config: ExportConfig,
    selections: Sequence[str],
    recipe: str,
    mixtures: Sequence[str] = (),
) -> None:
    """Write the selections in each format and file type, best rank first; in place of them the
    mixtures, if any are named, by position. Several are in folders of their names.

    Each format is a folder of files of up to 100,000 rows. The card, README.md, is written last: a
    folder without it was cut off. What an earlier export left is removed first. `recipe`: the
    resolved recipe, for the card. Rejected: `not_alpaca`, conversations that the alpaca form cannot
    hold (tool turns, turns that do not alternate); each is in `rejects` once.
    """
    run, lake = context.run, context.lake
    run.unit = "row"
    run.reads("mixtures" if mixtures else "selections", "samples")
    files, root = fsspec.core.url_to_fs(config.path)
    names = list(mixtures) or list(selections)
    folders = {name: f"{root}/{name}" for name in names} if len(names) > 1 else {names[0]: root}
    made_by = {noted_in(files, f"{folder}/README.md", RUN_NOTE) for folder in folders.values()}
    current = made_by.pop() if len(made_by) == 1 else None
    if run.done_before(config.model_dump(), names, root, output_of=current):
        return
    refused: list[DataFrame] = []
    with context.console.spark_progress(context.engines.spark, "export"):
        try:
            for name, folder in folders.items():
                rows = _with_turns(context, chosen_rows(context, name, bool(mixtures))).persist()
                refused += _write_all(context, config, files, folder, name, rows, recipe)
                rows.unpersist()
        except OSError as error:
            raise RunError(f"export.path={config.path}: cannot be written: {error}") from error
        if refused:
            lake.append(reduce(DataFrame.unionByName, refused).distinct(), "rejects")
    run.wrote("rejects")


def _write_all(
    context: Context,
    config: ExportConfig,
    files: Any,
    root: str,
    name: str,
    rows: DataFrame,
    recipe: str,
) -> list[DataFrame]:
    """Write one folder: all formats, `dataset_info.json`, the card. Gives rows for `rejects`."""
    run = context.run
    card = f"{root}/README.md"
    total = rows.count()
    if not total:
        what, step = ("mixture", "mix") if "mixtures" in run.read else ("selection", "select")
        raise RunError(
            f"export: lake {context.lake.root} has no {what} {name!r}; run the step {step} with "
            f"{step}.name set to it"
        )
    info: dict[str, Any] = {}
    counts: dict[str, int] = {}
    refused = []
    files.makedirs(root, exist_ok=True)
    # The card says which run the folder is of, so it goes first and comes back last.
    if files.exists(card):
        files.rm(card)
    for form, kind in product(FORMS, ("jsonl", "parquet")):
        if files.exists(f"{root}/{_folder(form, kind)}"):
            files.rm(f"{root}/{_folder(form, kind)}", recursive=True)
    for form in config.formats:
        written = FORMS[form](rows).withColumn("part", F.floor(F.col("rank") / ROWS_PER_FILE))
        written = written.persist()
        counts[form] = written.count()
        for kind in config.files:
            _write(files, root, _folder(form, kind), written, kind)
            info[f"{name}_{form}_{kind}"] = {
                "file_name": _folder(form, kind),
                **_TRAINER_KEYS[form],
            }
        written.unpersist()
        run.input += total
        run.kept += counts[form]
        if total > counts[form]:
            run.rejected[f"not_{form}"] += total - counts[form]
            refused.append(_left_out(context, rows, written, f"not_{form}"))
    pools = {row["pool"]: row["count"] for row in rows.groupBy("pool").count().collect()}
    _put(files, f"{root}/dataset_info.json", json.dumps(info, indent=2) + "\n")
    _put(files, card, _card(context, config, name, recipe, counts, pools))
    return refused


def _left_out(context: Context, rows: DataFrame, written: DataFrame, reason: str) -> DataFrame:
    """Rows for `rejects`: the selected ones that a form cannot hold."""
    ids = written.select("pool", F.col("id").alias("sample_id"))
    left = rows.join(ids, ["pool", "sample_id"], "left_anti")
    return rejected(context, left.withColumn("reason", F.lit(reason)))


def chosen_rows(context: Context, name: str, mixed: bool) -> DataFrame:
    """A selection's `pool`, `sample_id`, `rank`, `score`, `reason`, `nearest`, `similarity`; of a
    mixture the position as `rank` and the part as `reason`."""
    if not mixed:
        rows = context.pinned("selections").where(F.col("selection") == name)
        return rows.drop("selection", "run_id")
    rows = context.pinned("mixtures").where(F.col("mixture") == name)
    lacks = {column: F.lit(None) for column in ("score", "nearest", "similarity")}
    told = rows.withColumnsRenamed({"position": "rank", "part": "reason"}).withColumns(lacks)
    return told.drop("mixture", "copy", "run_id")


def _with_turns(context: Context, rows: DataFrame) -> DataFrame:
    samples = context.pinned("samples")
    return rows.select("pool", "sample_id", "rank").join(
        samples.select("pool", "sample_id", "turns", "meta", "source", "source_row"),
        ["pool", "sample_id"],
    )


def _messages(rows: DataFrame) -> DataFrame:
    return rows.select(
        F.col("sample_id").alias("id"), "pool", F.col("turns").alias("messages"), "rank"
    )


def _sharegpt(rows: DataFrame) -> DataFrame:
    names = F.create_map(*(F.lit(text) for pair in _TURN_NAMES.items() for text in pair))

    def turn(item: Column) -> Column:
        return F.struct(names[item["role"]].alias("from"), item["content"].alias("value"))

    turns = F.transform("turns", turn).alias("conversations")
    return rows.select(F.col("sample_id").alias("id"), "pool", turns, "rank")


def _alpaca(rows: DataFrame) -> DataFrame:
    """The last exchange as instruction, input and output; earlier ones as history."""
    first = F.element_at("turns", 1)
    has_system = first["role"] == "system"
    rows = rows.withColumns(
        {
            "system": F.when(has_system, first["content"]).otherwise(""),
            "talk": F.when(has_system, F.slice("turns", 2, F.size("turns"))).otherwise(
                F.col("turns")
            ),
        }
    )
    expected = F.transform(
        "talk", lambda _, i: F.when(i % 2 == 0, F.lit("user")).otherwise(F.lit("assistant"))
    )
    pairs = (F.size("talk") % 2 == 0) & (F.col("talk.role") == expected) & (F.size("talk") > 0)
    rows = rows.where(pairs)
    query, answer = F.element_at("talk", -2)["content"], F.element_at("talk", -1)["content"]
    # An alpaca record's `input` was joined to its instruction by a line break, and is in meta.
    extra = F.concat(F.lit("\n"), F.try_element_at("meta", F.lit("input")))
    ends = F.coalesce(query.endswith(extra) & (F.length(extra) > 1), F.lit(False))
    instruction = F.when(ends, F.expr("left(q, length(q) - length(extra))")).otherwise(query)
    earlier = F.expr(
        "transform(sequence(0, int(size(talk) div 2) - 2),"
        " i -> array(talk[i * 2].content, talk[i * 2 + 1].content))"
    )
    history = F.when(F.size("talk") > 2, earlier).otherwise(F.array().cast("array<array<string>>"))
    return rows.withColumns({"q": query, "extra": extra}).select(
        F.col("sample_id").alias("id"),
        "pool",
        instruction.alias("instruction"),
        F.when(ends, F.expr("substring(extra, 2)")).otherwise("").alias("input"),
        answer.alias("output"),
        "system",
        history.alias("history"),
        "rank",
    )


FORMS: dict[ExportFormat, Callable[[DataFrame], DataFrame]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "messages": _messages,
}

_TRAINER_KEYS: dict[ExportFormat, dict[str, Any]] = {
    "alpaca": {
        "columns": {
            "prompt": "instruction",
            "query": "input",
            "response": "output",
            "system": "system",
            "history": "history",
        }
    },
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations"}},
    "messages": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "tool",
            "system_tag": "system",
        },
    },
}
"""How LLaMA-Factory's dataset_info.json describes each format."""


def _folder(form: str, kind: str) -> str:
    return form if kind == "jsonl" else f"{form}_{kind}"


def _write(files: Any, root: str, folder: str, rows: DataFrame, kind: str) -> None:
    """Write beside the place, name the files 00000.jsonl and on, then move the whole folder."""
    fresh = f"{root}/_{folder}.new"
    if files.exists(fresh):
        files.rm(fresh, recursive=True)
    parts = rows.agg(F.max("part")).first()
    count = 1 + int(parts[0] or 0) if parts else 1
    ordered = rows.repartitionByRange(count, "rank").sortWithinPartitions("rank")
    ordered = ordered.drop("rank", "part")
    target = files.unstrip_protocol(fresh).replace("s3://", "s3a://", 1)
    if kind == "jsonl":
        ordered.write.option("ignoreNullFields", "false").json(target)
    else:
        ordered.write.parquet(target)
    extension = "jsonl" if kind == "jsonl" else "parquet"
    for position, path in enumerate(sorted(files.glob(f"{fresh}/part-*"))):
        files.mv(path, f"{fresh}/{position:05d}.{extension}")
    for other in files.ls(fresh, detail=False):
        if not Path(other).name[0].isdigit():
            files.rm(other)
    files.mv(fresh, f"{root}/{folder}", recursive=True)


def _put(files: Any, path: str, text: str) -> None:
    with files.open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def _card(
    context: Context,
    config: ExportConfig,
    name: str,
    recipe: str,
    counts: dict[str, int],
    pools: dict[str, int],
) -> str:
    """The dataset card: what is in the folder, and what made it."""
    read = context.run.read
    table, done, order = ("selections", "Selected", "rank")
    if "mixtures" in read:
        table, done, order = ("mixtures", "Mixed", "position")
    lines = [
        "---",
        f"pretty_name: {json.dumps(name)}",
        "tags: [tagsieve, sft]",
        f"tagsieve-run: {context.run.run_id}",
        f"size_categories: [{_size_category(sum(pools.values()))}]",
        "---",
        "",
        f"# {name}",
        "",
        f"{done} by tagsieve {tagsieve.__version__}, run `{context.run.run_id}`, from versions "
        f"{read['samples']} of `samples` and {read[table]} of `{table}`.",
        "",
        "| pool | rows |",
        "|---|---:|",
        *(f"| {pool} | {count:,} |" for pool, count in sorted(pools.items())),
        "",
        "| format | rows | files |",
        "|---|---:|---|",
        *(
            f"| {form} | {count:,} | {', '.join(f'`{_folder(form, k)}/`' for k in config.files)} |"
            for form, count in counts.items()
        ),
        "",
        f"Rows are in the order of their {order}. `dataset_info.json` is what LLaMA-Factory reads.",
        "",
        "## Recipe",
        "",
        "```json",
        json.dumps(json.loads(recipe), indent=2, ensure_ascii=False),
        "```",
        "",
    ]
    return "\n".join(lines)


def _size_category(rows: int) -> str:
    """Hugging Face's size category of a data set."""
    for limit, name in (
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
    ):
        if rows < limit:
            return name
    return "n>1M"
