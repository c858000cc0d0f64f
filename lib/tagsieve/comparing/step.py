"""The command compare: some selections side by side, as a table, as HTML and as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.comparing.command import run_command
from tagsieve.comparing.distributions import DECILES, lengths, scores, spread
from tagsieve.comparing.diversity import diversity
from tagsieve.comparing.overlap import (
    first_of_each,
    memberships,
    only_rows,
    only_tags,
    overlap,
    shared_rows,
)
from tagsieve.comparing.page import write_comparison
from tagsieve.comparing.rows import KEY, check_names, compared_rows, with_texts
from tagsieve.comparing.table import show_comparison
from tagsieve.comparing.tags import ontology_versions, tag_figures, tagged_rows
from tagsieve.comparing.verbs import most_frequent, verb_objects
from tagsieve.console import Console
from tagsieve.engines.context import Context, Engines
from tagsieve.lake import Lake

EXAMPLES = 3
"""Rows that only one selection has, of which the text is shown."""

ONLY_TAGS = 20
"""Tags that only one selection has, by name."""

SNIPPET = 600


def compare(
    lake: Lake,
    engines: Engines,
    console: Console,
    names: Sequence[str],
    out: str,
    diversity_rows: int = 100_000,
) -> None:
    """Compare selections: print a table, write the page `out` and, beside it, the figures as JSON.

    `diversity_rows`: rows of a selection whose distance to the nearest other one is measured; of
    more, so many are drawn; 0: none are. Writes nothing to the lake. Raises UsageError for a
    selection that is not there, RunError where `out` cannot be written.
    """
    names = list(dict.fromkeys(names))
    check_names(lake, names)
    tables = ("selections", "mixtures", "samples", "tags", "scores", "embeddings")

    def write(files: Any, path: str, found: Mapping[str, Any]) -> None:
        write_comparison(files, path, lake.root, found)

    find = partial(comparison, names=names, diversity_rows=diversity_rows)
    run_command("compare", lake, engines, console, out, tables, find, write, show_comparison)


def comparison(context: Context, names: Sequence[str], diversity_rows: int) -> dict[str, Any]:
    """All figures of some selections, as plain values: `selections` (one each, in their order),
    `overlap` (one for each ordered pair), `lacking` (what could not be compared, and why) and
    `read` (the versions of the tables).

    Of a selection: `name`, `run_id`, `rows`, `pools`, `lengths`, `scores`, `tags` (None: the lake
    has none), `diversity`, `verbs`, `instructions`, and `only`, None where there is but one
    selection.
    """
    rows = context.stored("compared", with_texts(context, compared_rows(context, names)))
    plain = rows.select("selection", *KEY, "rank", "run_id")
    found: dict[str, dict[str, Any]] = {
        name: {"name": name, "run_id": None, "rows": 0, "pools": {}, "lengths": {}, "scores": {},
               "tags": None, "diversity": [], "verbs": [], "instructions": 0, "only": None}
        for name in names
    }  # fmt: skip
    by_pool = plain.groupBy("selection", "pool").agg(
        F.count("*").alias("count"), F.max("run_id").alias("run_id")
    )
    for row in by_pool.orderBy("selection", "pool").collect():
        told = found[row["selection"]]
        told["run_id"] = row["run_id"]
        told["rows"] += row["count"]
        told["pools"][row["pool"]] = row["count"]
    held = memberships(plain)
    shared = {
        (row["selection"], row["other"]): row["shared"] for row in shared_rows(held).collect()
    }
    for kind, values in (
        ("lengths", lengths(rows)),
        ("scores", scores(plain, context.pinned("scores"))),
    ):
        for name, spreads in _spreads(values).items():
            found[name][kind] = spreads
    versions = ontology_versions(context, plain, names)
    tagged = plain.withColumn("tags", F.lit(None).cast("array<string>"))
    if versions:
        tags = context.pinned("tags")
        tagged = tagged_rows(plain, tags, versions)
        for row in tag_figures(tagged, tags).collect():
            told = row.asDict()
            found[told.pop("selection")]["tags"] = told
    for each in diversity(context, plain, names, diversity_rows):
        figures = asdict(each)
        found[figures.pop("selection")]["diversity"].append(figures)
    _add_verbs(rows, found)
    if len(names) > 1:
        _add_only(rows, held, tagged, found)
    return {
        "lake": context.lake.root,
        "read": context.run.read,
        "deciles": DECILES,
        "selections": list(found.values()),
        "overlap": overlap(names, shared),
        "lacking": _lacking(list(found.values()), diversity_rows),
    }


def _spreads(values: DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in spread(values).orderBy("selection", "name").collect():
        told = row.asDict()
        found[told.pop("selection")][told.pop("name")] = told
    return found


def _add_verbs(rows: DataFrame, found: Mapping[str, dict[str, Any]]) -> None:
    counts = verb_objects(rows.where(F.col("instruction").isNotNull())).persist()
    for row in counts.groupBy("selection").agg(F.sum("count").alias("count")).collect():
        found[row["selection"]]["instructions"] = row["count"]
    for row in most_frequent(counts).collect():
        told = row.asDict(recursive=True)
        objects = [{"object": o["object"], "count": o["count"]} for o in told["objects"] or ()]
        verb = {"verb": told["verb"], "count": told["count"], "objects": objects}
        found[told["selection"]]["verbs"].append(verb)
    counts.unpersist()


def _add_only(
    rows: DataFrame, held: DataFrame, tagged: DataFrame, found: Mapping[str, dict[str, Any]]
) -> None:
    """What no other selection has: `rows` (how many), `examples`, `tags` (how many), `top_tags`."""
    alone = only_rows(rows, held).persist()
    for told in found.values():
        told["only"] = {"rows": 0, "examples": [], "tags": 0, "top_tags": []}
    for row in alone.groupBy("selection").count().collect():
        found[row["selection"]]["only"]["rows"] = row["count"]
    shown = first_of_each(alone, EXAMPLES).join(
        tagged.select("selection", *KEY, "tags"), ["selection", *KEY], "left"
    )
    for row in shown.orderBy("selection", "rank").collect():
        told = row.asDict(recursive=True)
        turns = [[turn["role"], _cut(turn["content"])] for turn in told["turns"]]
        example = {name: told[name] for name in (*KEY, "rank")}
        example |= {"tags": told["tags"] or [], "turns": turns}
        found[told["selection"]]["only"]["examples"].append(example)
    alone.unpersist()
    for row in only_tags(tagged, ONLY_TAGS).collect():
        told = row.asDict(recursive=True)
        top = [{"tag": tag["tag"], "rows": tag["samples"]} for tag in told["tags"]]
        found[told["selection"]]["only"] |= {"tags": told["total"], "top_tags": top}


def _lacking(selections: Sequence[Mapping[str, Any]], diversity_rows: int) -> list[str]:
    """What is left out of which selections, and the step that would make it."""
    tagged = {each["name"]: each["tags"] and each["tags"]["tagged"] for each in selections}
    measured = ("vectors of two rows", "the step embed makes them")
    if not diversity_rows:
        measured = ("diversity", "--diversity-rows is 0")
    parts = (
        ("tags", tagged, "the steps tag and normalize make them"),
        ("scores", _column(selections, "scores"), "the step score makes them"),
        (measured[0], _column(selections, "diversity"), measured[1]),
        ("root verbs", _column(selections, "verbs"), "they are found in English instructions"),
    )
    found = []
    for what, there, told in parts:
        without = [name for name, figures in there.items() if not figures]
        if without:
            whose = "any selection" if len(without) == len(selections) else ", ".join(without)
            found.append(f"no {what} of {whose}; {told}")
    return found


def _column(selections: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    return {each["name"]: each[name] for each in selections}


def _cut(text: str) -> str:
    return text if len(text) <= SNIPPET else text[:SNIPPET] + " …"
