"""The report step: one self-contained HTML file over the lake's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fsspec
from markupsafe import Markup
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from tagsieve.drawing import loss_curves
from tagsieve.engines.context import Context
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.ontology.comparing import agreements
from tagsieve.page import RUN_NOTE, noted_in, write_page
from tagsieve.reporting.config import ExportConfig, ReportConfig
from tagsieve.reporting.figures import diversity_complexity, recall_matrix
from tagsieve.reporting.files import chosen_rows

_SNIPPET = 600
_MODELS = 6
_PLACES = 3
_SHOWN = 12
"""Rules, pairs, and tags of a pool that are shown."""


def report(
    context: Context,
    config: ReportConfig,
    export: ExportConfig,
    selection: str,
    version: str | None,
    mixtures: Sequence[str] = (),
) -> None:
    """Write the HTML report of one selection and its ontology version, if it has one; in place of
    the selection of the mixtures, if any are named: of the last one's rows, and counts of all.

    Reads counts and a few example rows; all text from the data is escaped.
    """
    run, lake = context.run, context.lake
    run.unit = "file"
    run.reads(
        "samples", "tags", "ontology_rules", "pool_stats", "pool_recall", "pool_tags", "tag_pairs",
        "tag_coverage", "tag_funnel", "scores", "selections", "rejects", "quarantine",
    )  # fmt: skip
    if lake.version("tagger_agreement") is not None:  # most lakes hold no second tagger
        run.reads("tagger_agreement")
    if lake.version("models") is not None:
        run.reads("models")
    if mixtures:
        run.reads("mixtures")
    name = mixtures[-1] if mixtures else selection
    files, path = fsspec.core.url_to_fs(config.path or f"{export.path}/report.html")
    identity = (config.model_dump(), list(mixtures) or selection, version, path)
    if run.done_before(*identity, output_of=noted_in(files, path, RUN_NOTE)):
        return
    run.input = 1
    with context.console.spark_progress(context.engines.spark, "report"):
        rows = chosen_rows(context, name, bool(mixtures))
        facts = _facts(context, config, rows, version) | {"mixtures": _mixed(context, mixtures)}
    facts["models"] = _models(lake) if "models" in run.read else []
    facts |= {"run_id": run.run_id, "selection": name, "ontology_version": version}
    write_page("report.path", files, path, "reporting/report.html.j2", facts, lake.root)
    run.kept = 1


def _facts(
    context: Context, config: ReportConfig, chosen: DataFrame, version: str | None
) -> dict[str, Any]:
    lake = context.lake
    samples = context.pinned("samples")
    tags = context.pinned("tags")
    tags = tags.where(F.col("ontology_version") == F.lit(version))
    rejects = context.pinned("rejects").where(F.col("reason") != "not_selected")
    selected = (
        chosen.join(samples.select("pool", "sample_id", "turns"), ["pool", "sample_id"])
        .join(tags.select("sample_id", "tags"), "sample_id", "left")
        .orderBy("rank")
        .limit(config.examples)
    )
    refused = (
        rejects.groupBy("reason")
        .agg(
            F.count("*").alias("count"),
            F.min(F.substring("payload", 1, _SNIPPET)).alias("payload"),
        )
        .orderBy(F.desc("count"), "reason")
    )
    quarantined = (
        context.pinned("quarantine")
        .where(F.col("resolved_by").isNull())
        .groupBy("step", "reason")
        .agg(
            F.count("*").alias("count"),
            F.min("error").alias("error"),
            F.min(F.substring("payload", 1, _SNIPPET)).alias("payload"),
        )
        .orderBy(F.desc("count"), "step", "reason")
    )
    places = _places(rejects)
    return {
        **({} if version is None else _of_tags(context, config, chosen, tags, version)),
        "rows": funnels(lake)[0],
        "steps": latest_steps(lake),
        "scores": _of_scores(context.pinned("scores")),
        "selected": [_example(row.asDict(recursive=True)) for row in selected.collect()],
        "selected_pools": [
            row.asDict() for row in chosen.groupBy("pool").count().orderBy("pool").collect()
        ],
        "refused": [_refusal(row, places[row["reason"]]) for row in refused.collect()],
        "quarantined": [
            row.asDict() | {"payload": _text(row["payload"])} for row in quarantined.collect()
        ],
    }


def _models(lake: Lake) -> list[dict[str, Any]]:
    """The newest models that were trained in this lake, each with its curves."""
    rows = lake.arrow("models").to_pylist(maps_as_pydicts="strict")
    newest = sorted(rows, key=lambda row: row["created"], reverse=True)[:_MODELS]
    for row in newest:
        row["curves"] = Markup(loss_curves(row["history"]) or "")
    return newest


def _mixed(context: Context, mixtures: Sequence[str]) -> list[dict[str, Any]]:
    """What each mixture has of each part and pool, copies counted beside."""
    if not mixtures:
        return []
    rows = context.pinned("mixtures").where(F.col("mixture").isin(*mixtures))
    counts = rows.groupBy("mixture", "part", "pool").agg(
        F.count("*").alias("count"), F.count_if(F.col("copy") > 0).alias("copies")
    )
    order = {name: number for number, name in enumerate(mixtures)}
    found = [row.asDict() for row in counts.orderBy("part", "pool").collect()]
    return sorted(found, key=lambda row: order[row["mixture"]])


def _of_scores(scores: DataFrame) -> list[dict[str, Any]]:
    """How the scores of each scorer are spread."""
    shares = F.percentile_approx("value", F.array(*map(F.lit, (0.05, 0.5, 0.95))))
    spread = scores.groupBy("scorer").agg(
        F.count("*").alias("count"),
        F.avg("value").alias("mean"),
        F.min("value").alias("least"),
        shares.alias("shares"),
        F.max("value").alias("most"),
    )
    return [row.asDict() for row in spread.orderBy("scorer").collect()]


def _of_tags(
    context: Context, config: ReportConfig, chosen: DataFrame, tags: DataFrame, version: str
) -> dict[str, Any]:
    """What the report says of an ontology version."""
    lake = context.lake

    def of_version(name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = lake.arrow(
            name, filters=[("ontology_version", "=", version)]
        ).to_pylist()
        return rows

    stats = sorted(of_version("pool_stats"), key=lambda row: -row["samples"])
    if not stats:
        raise RunError(
            f"report: ontology version {version} in lake {lake.root} is not analysed; run the step "
            "analyze first"
        )
    top = (
        tags.select(F.explode("tags").alias("tag"))
        .groupBy("tag")
        .count()
        .orderBy(F.desc("count"), "tag")
        .limit(config.top_tags)
    )
    return {
        **_together(context, version),
        "covered": chosen.join(tags, "sample_id").select(F.explode("tags")).distinct().count(),
        "stats": stats,
        "tag_funnel": sorted(of_version("tag_funnel"), key=lambda row: row["position"]),
        "scatter": Markup(diversity_complexity(stats)),
        "recall": Markup(recall_matrix(of_version("pool_recall"))),
        "agreements": agreements(lake, version),
        "top_tags": [row.asDict() for row in top.collect()],
    }


def _together(context: Context, version: str) -> dict[str, Any]:
    """Rules, pairs, the tags that mark each pool, and how far the most frequent ones reach."""

    def of_version(name: str, column: str = "ontology_version") -> DataFrame:
        return context.pinned(name).where(F.col(column) == version)

    def first(frame: DataFrame) -> list[dict[str, Any]]:
        return [row.asDict() for row in frame.limit(_SHOWN).collect()]

    by_lift = (F.desc("lift"), F.desc("support"), "antecedent", "consequent")
    pairs = of_version("tag_pairs").orderBy(F.desc("lift"), F.desc("samples"), "tag", "other_tag")
    place = Window.partitionBy("pool").orderBy(F.desc(F.col("share") * F.log2("lift")), "tag")
    marks = (
        of_version("pool_tags")
        .where(F.col("lift") > 1)
        .withColumn("place", F.row_number().over(place))
        .where(F.col("place") <= _SHOWN)
        .groupBy("pool")
        .agg(F.array_sort(F.collect_list(F.struct("place", "tag", "share", "lift"))).alias("tags"))
        .orderBy("pool")
    )
    coverage = of_version("tag_coverage")
    reach = [
        F.min(F.when(F.col("coverage") >= share, F.col("rank"))).alias(f"{share:.0%}")
        for share in (0.5, 0.8, 0.9, 0.95)
    ]
    reached = coverage.agg(F.max("rank").alias("all"), *reach).first()
    assert reached is not None
    told = {share: rank for share, rank in reached.asDict().items() if rank is not None}
    return {
        "rules": first(of_version("ontology_rules", "version").orderBy(*by_lift)),
        "pairs": first(pairs),
        "pool_tags": [row.asDict(recursive=True) for row in marks.collect()],
        "all_tags": told.pop("all", 0),
        "reach": told,
    }


def latest_steps(lake: Lake) -> list[dict[str, Any]]:
    """The newest finished run of each step that did the work itself, in order of time.

    Rows of `runs`, with maps as dicts and `rejected_total`, `quarantined_total` added.
    """
    newest: dict[str, dict[str, Any]] = {}
    for row in lake.arrow("runs").sort_by("started").to_pylist():
        row |= {name: dict(row[name] or []) for name in ("rejected", "quarantined", "metrics")}
        for name in ("rejected", "quarantined"):
            row[f"{name}_total"] = sum(row[name].values())
        if row["status"] == "done" and "from_earlier_run" not in row["metrics"]:
            newest[row["step"]] = row
    return sorted(newest.values(), key=lambda row: row["started"])


def funnels(lake: Lake) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """From rows read to rows selected (by the newest run that selected) and mixed, and from raw
    tags to normalised ones of the newest version."""
    latest = latest_steps(lake)
    by_step = {row["step"]: row for row in latest}
    stages = [
        ("rows read", "ingest", ("input",)),
        ("samples", "ingest", ("kept", "known")),
        ("tagged samples", "analyze", ("kept",)),
        ("embedded samples", "embed", ("kept", "known")),
        ("screened samples", "screen", ("kept",)),
        *((step.replace("select", "selected", 1), step, ("kept",)) for step in _selects(latest)),
        ("mixed", "mix", ("kept",)),
    ]
    rows = [
        (label, sum(by_step[step][column] for column in columns))
        for label, step, columns in stages
        if step in by_step
    ]
    tags: list[tuple[str, int]] = []
    if "normalize" in by_step:
        steps = lake.arrow("tag_funnel").sort_by("position").to_pylist()
        # Not of one that was cut off.
        made = lake.arrow("ontology_versions", ["version"])["version"].to_pylist()
        newest = max((int(version[1:]) for version in made), default=0)
        tags = [(r["stage"], r["tags"]) for r in steps if r["ontology_version"] == f"v{newest}"]
    return rows, tags


def _selects(latest: Sequence[Mapping[str, Any]]) -> list[str]:
    """The select steps of the newest run that had any: `select`, or one for each selection."""
    found = [row for row in latest if row["step"].split()[0] == "select"]
    return [row["step"] for row in found if row["run_id"] == found[-1]["run_id"]]


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    turns = [(turn["role"], _cut(turn["content"])) for turn in row["turns"]]
    named = ("pool", "rank", "score", "reason", "nearest", "similarity")
    return {name: row[name] for name in named} | {"tags": row["tags"] or [], "turns": turns}


def _places(rejects: DataFrame) -> dict[str, list[str]]:
    """A few places of each reason, so that a common one does not hide the others."""
    # Several runs may have refused what is at one place. Spark keeps no more of a reason while it
    # sorts.
    order = Window.partitionBy("reason").orderBy("source", "source_row")
    first = (
        rejects.select("reason", "source", "source_row", F.dense_rank().over(order).alias("place"))
        .where(F.col("place") <= _PLACES)
        .distinct()
        .orderBy("place")
    )
    found: dict[str, list[str]] = {}
    for row in first.collect():
        place = f"{row['source'].rsplit('/', 1)[-1]}:{row['source_row']}"
        found.setdefault(row["reason"], []).append(place)
    return found


def _refusal(row: Row, places: Sequence[str]) -> dict[str, Any]:
    return row.asDict() | {"places": places, "payload": _text(row["payload"])}


def _text(payload: bytearray | None) -> str:
    return bytes(payload).decode("utf-8", "replace") if payload else ""


def _cut(text: str) -> str:
    return text if len(text) <= _SNIPPET else text[:_SNIPPET] + " …"
