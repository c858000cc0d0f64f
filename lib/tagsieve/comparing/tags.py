"""How many of the tags a selection covers, and how many its rows have."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.lake import Lake


def ontology_versions(context: Context, rows: DataFrame, names: Sequence[str]) -> dict[str, str]:
    """The ontology version by which each selection's tags are looked up: the newest one that was
    there for the run that made the selection, where it pinned `tags`; else the newest one now.

    Empty where the lake has no tags. Reads `selection`, `run_id`.
    """
    newest = newest_version(context.lake)
    if newest is None:
        return {}
    pins = {
        row["run_id"]: dict(row["read"] or []).get("tags", -1)
        for row in context.lake.arrow("runs", ["run_id", "step", "read"]).to_pylist()
        if row["step"].split()[0] in ("select", "mix")
    }
    made_by = {
        row["selection"]: row["run_id"]
        for row in rows.groupBy("selection").agg(F.max("run_id").alias("run_id")).collect()
    }
    found = {}
    for name in names:
        pinned = pins.get(made_by.get(name), -1)
        found[name] = (newest_version(context.lake, pinned) if pinned >= 0 else None) or newest
    return found


def newest_version(lake: Lake, version: int | None = None) -> str | None:
    """The newest ontology version that the table `tags`, or some version of it, has rows of."""
    return max(tagged_versions(lake, version), key=lambda name: int(name[1:]), default=None)


def tagged_versions(lake: Lake, version: int | None = None) -> set[str]:
    """The ontology versions that the table `tags`, or some version of it, has rows of; without one
    that was cut off, which is not in `ontology_versions`."""
    table = lake.delta("tags", version)
    there = {str(part["ontology_version"]) for part in table.partitions()} if table else set()
    return there & set(lake.arrow("ontology_versions", ["version"])["version"].to_pylist())


def tagged_rows(rows: DataFrame, tags: DataFrame, versions: dict[str, str]) -> DataFrame:
    """Rows with their `tags` (null: untagged) by each selection's ontology version, which becomes
    a column too. Reads `selection`, `sample_id`, and the table `tags`."""
    pairs = [F.lit(text) for pair in versions.items() for text in pair]
    version = F.create_map(*pairs)[F.col("selection")]
    return rows.withColumn("ontology_version", version).join(
        tags.select("sample_id", "ontology_version", "tags"),
        ["sample_id", "ontology_version"],
        "left",
    )


def tag_figures(tagged: DataFrame, tags: DataFrame) -> DataFrame:
    """One row per selection: `ontology_version`, `tagged` rows, their `mean` number of tags, the
    distinct `tags` they have, `all` tags of the version, and `coverage`, the share of them."""
    by = ["selection", "ontology_version"]
    rows = tagged.groupBy(*by).agg(
        F.count("tags").alias("tagged"), F.avg(F.when(F.col("tags").isNotNull(), F.size("tags")))
        .alias("mean"),
    )  # fmt: skip
    own = tagged.select(*by, F.explode("tags").alias("tag")).groupBy(*by)
    own_tags = own.agg(F.countDistinct("tag").alias("tags"))
    every = tags.select("ontology_version", F.explode("tags").alias("tag"))
    all_tags = every.groupBy("ontology_version").agg(F.countDistinct("tag").alias("all"))
    found = rows.join(own_tags, by, "left").join(all_tags, "ontology_version", "left")
    found = found.fillna(0, ["tags", "all"])
    return found.withColumn("coverage", F.try_divide("tags", "all"))
