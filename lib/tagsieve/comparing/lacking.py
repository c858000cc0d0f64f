"""The command gaps: which tags of a target the pools, or a selection of them, lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from tagsieve.comparing.command import run_command
from tagsieve.comparing.rows import check_known, selections_of
from tagsieve.comparing.tags import newest_version, tagged_versions
from tagsieve.console import Console
from tagsieve.engines.context import Context, Engines
from tagsieve.engines.turns import first_human_text
from tagsieve.errors import UsageError
from tagsieve.lake import Lake
from tagsieve.page import write_page

EXAMPLES = 3
"""Conversations of the target that are shown of a tag."""

SNIPPET = 300

SHOWN = 20
"""Tags in the terminal; the page has 500, the JSON all."""

ON_PAGE = 500


def gaps(
    lake: Lake,
    engines: Engines,
    console: Console,
    targets: Sequence[str],
    out: str,
    selection: str | None = None,
    at_least: int = 20,
    version: str | None = None,
) -> None:
    """Say which tags of the pools `targets` fewer than `at_least` rows have of all other pools, or
    of a selection: print a table, write the page `out` and, beside it, the figures as JSON.

    `version`: of the ontology; default: the newest. Writes nothing to the lake. Raises UsageError
    for a pool, selection or version that is not there, RunError where `out` cannot be written.
    """
    targets = list(dict.fromkeys(targets))
    _check_pools(lake, targets)
    if selection is not None:
        own = selections_of(lake)
        check_known("gaps --selection", lake, [selection], own, "selection", "run the step select")
    version = _checked_version(lake, version)
    tables = ("selections", "samples", "tags", "raw_tags", "ontology", "ontology_versions")

    def find(context: Context) -> dict[str, Any]:
        return found_gaps(context, targets, selection, at_least, version)

    def write(files: Any, path: str, found: Mapping[str, Any]) -> None:
        facts = {**found, "most": ON_PAGE}
        write_page("--out", files, path, "comparing/gaps.html.j2", facts, lake.root)

    run_command("gaps", lake, engines, console, out, tables, find, write, _show)


def found_gaps(
    context: Context, targets: Sequence[str], selection: str | None, at_least: int, version: str
) -> dict[str, Any]:
    """All figures, as plain values.

    `target` and `there`: `rows` (distinct conversations) and how many of them are `tagged`.
    `tags`: of the target; `missing` and `few`: how many of them no row, or fewer than `at_least`,
    have there. `met`: the share of the target's tagged conversations whose tags all have
    `at_least` rows. `gaps`: missing and few ones, those that most conversations of the target have
    first: `tag`, `target` (conversations), `rows` (there), `examples`. `rare`: the same of raw tags
    that are too rare for the ontology and that no row has there; not in the figures above.
    """
    samples = context.pinned("samples")
    of_target = F.col("pool").isin(*targets)
    wanted = samples.where(of_target).select("sample_id").distinct()
    if selection is None:
        there = samples.where(~of_target).select("sample_id").distinct()
    else:
        rows = context.pinned("selections").where(F.col("selection") == selection)
        there = rows.select("sample_id").distinct()
    tags = context.pinned("tags").where(F.col("ontology_version") == version)
    tags = tags.select("sample_id", "tags")
    wanted_tags = context.stored("wanted", wanted.join(tags, "sample_id", "left"))
    there_tags = context.stored("there", there.join(tags, "sample_id", "left"))
    texts = _texts(samples.where(of_target))
    counted = context.stored("counted", _counted(wanted_tags, there_tags))
    lacking = F.col("rows") < at_least
    totals = counted.agg(
        F.count("*").alias("tags"),
        F.count_if(F.col("rows") == 0).alias("missing"),
        F.count_if((F.col("rows") > 0) & lacking).alias("few"),
    ).first()
    assert totals is not None
    own = wanted_tags.select("sample_id", F.explode("tags").alias("tag"))
    unmet = own.join(counted.where(lacking), "tag").select("sample_id").distinct().count()
    target, other = _counts(wanted_tags), _counts(there_tags)
    met = (target["tagged"] - unmet) / target["tagged"] if target["tagged"] else None
    return {
        "lake": context.lake.root,
        "read": context.run.read,
        "targets": list(targets),
        "selection": selection,
        "at_least": at_least,
        "ontology_version": version,
        "target": target,
        "there": other,
        **totals.asDict(),
        "met": met,
        "gaps": _listed(counted.where(lacking), own, texts),
        "rare": _rare(context, version, wanted, there, texts),
    }


def _texts(samples: DataFrame) -> DataFrame:
    """`sample_id` and the beginning of the first human turn, as `text`."""
    text = F.substring(first_human_text(), 1, SNIPPET)
    return samples.groupBy("sample_id").agg(F.min(text).alias("text"))


def _counts(rows: DataFrame) -> dict[str, int]:
    found = rows.agg(F.count("*").alias("rows"), F.count("tags").alias("tagged")).first()
    assert found is not None
    return found.asDict()


def _counted(wanted: DataFrame, there: DataFrame) -> DataFrame:
    """Each tag that the target has: `tag`, `target` (its conversations with it), `rows`."""
    own = wanted.select(F.explode("tags").alias("tag")).groupBy("tag")
    own_counts = own.agg(F.count("*").alias("target"))
    others = there.select(F.explode("tags").alias("tag")).groupBy("tag")
    other_counts = others.agg(F.count("*").alias("rows"))
    return own_counts.join(other_counts, "tag", "left").fillna(0, ["rows"])


def _listed(counted: DataFrame, own: DataFrame, texts: DataFrame) -> list[dict[str, Any]]:
    """Tags with examples; as many as the target has tags, at most."""
    order = Window.partitionBy("tag").orderBy("sample_id")
    first = own.join(counted.select("tag"), "tag").withColumn("n", F.row_number().over(order))
    shown = first.where(F.col("n") <= EXAMPLES).join(texts, "sample_id")
    listed = F.sort_array(F.collect_list(F.struct("n", "text")))
    shown = shown.groupBy("tag").agg(F.transform(listed, lambda e: e["text"]).alias("examples"))
    rows = counted.join(shown, "tag").orderBy(F.desc("target"), "rows", "tag")
    return [row.asDict() for row in rows.select("tag", "target", "rows", "examples").collect()]


def _rare(
    context: Context, version: str, wanted: DataFrame, there: DataFrame, texts: DataFrame
) -> list[dict[str, Any]]:
    """Raw tags of the target that the ontology does not have, and that no row has there."""
    ontology = context.pinned("ontology").where(F.col("version") == version)
    fate = ontology.groupBy("raw_tag").agg(F.max_by("status", "update").alias("status"))
    rare = fate.where(F.col("status") != "kept").select(F.col("raw_tag").alias("tag"))
    own = _raw_tags(context, version, wanted).join(rare, "tag")
    own = context.stored("rare", own)
    others = _raw_tags(context, version, there).select("tag").distinct()
    counted = own.groupBy("tag").agg(F.count("*").alias("target"))
    lacking = counted.join(others, "tag", "left_anti").withColumn("rows", F.lit(0))
    return _listed(lacking, own, texts)


def _raw_tags(context: Context, version: str, contents: DataFrame) -> DataFrame:
    """`sample_id` and `tag`: the distinct raw tags of each content by the version's tagger."""
    samples = context.pinned("samples").join(contents, "sample_id", "left_semi")
    queries = samples.select("sample_id", F.explode("query_ids").alias("query_id")).distinct()
    versions = context.pinned("ontology_versions").where(F.col("version") == version)
    raw = context.pinned("raw_tags").join(F.broadcast(versions.select("tagger")), "tagger")
    raw = raw.select("query_id", F.explode("tags.tag").alias("tag"))
    return queries.join(raw, "query_id").select("sample_id", "tag").distinct()


def _check_pools(lake: Lake, targets: Sequence[str]) -> None:
    """Raise UsageError for a pool that is not there, and where there is no other one."""
    table = lake.delta("samples")
    known = sorted({str(part["pool"]) for part in table.partitions()}) if table else []
    check_known("gaps", lake, targets, known, "pool", "run the step ingest")
    if set(known) <= set(targets):
        raise UsageError(f"gaps {' '.join(targets)}: there is no other pool in lake {lake.root}")


def _checked_version(lake: Lake, version: str | None) -> str:
    """An ontology version that there are tags of: this one, or the newest."""
    known = tagged_versions(lake)
    if not known:
        raise UsageError(f"gaps: lake {lake.root} has no tags; run the steps tag and normalize")
    found = version or newest_version(lake)
    if found is None or found not in known:
        raise UsageError(f"gaps --version {version}: known: {', '.join(sorted(known))}")
    return found


def _show(console: Console, found: Mapping[str, Any]) -> None:
    target, there = found["target"], found["there"]
    where = found["selection"] or "the other pools"
    console.line(
        f"{', '.join(found['targets'])}: {target['rows']:,} conversations, {target['tagged']:,} "
        f"tagged, {found['tags']:,} tags of ontology {found['ontology_version']}; {where}: "
        f"{there['rows']:,} rows, {there['tagged']:,} tagged"
    )
    if found["met"] is not None:
        console.line(
            f"{found['missing']:,} of the tags are on no row, {found['few']:,} more on fewer than "
            f"{found['at_least']:,}; {found['met']:.1%} of the tagged conversations have neither"
        )
    for title, name in (("tags that are missing or few", "gaps"),
                        ("raw tags too rare for the ontology, on no row", "rare")):  # fmt: skip
        if found[name]:
            more = len(found[name]) - SHOWN
            console.table(
                title + (f" (the first {SHOWN} of {len(found[name]):,})" if more > 0 else ""),
                ["tag", "target", "rows", "for example"],
                [[each["tag"], each["target"], each["rows"], _line(each["examples"][0])]
                 for each in found[name][:SHOWN]],
            )  # fmt: skip


def _line(text: str) -> str:
    return text if len(text) <= 70 else f"{text[:69]}…"
