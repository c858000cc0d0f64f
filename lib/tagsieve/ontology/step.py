"""The normalize and analyze steps: raw tags in; an ontology version, tags and figures out."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.errors import RunError
from tagsieve.lake import Lake, rows_table
from tagsieve.ledger import ANY_RUN
from tagsieve.ontology.analysis import funnel, pool_recall, pool_stats
from tagsieve.ontology.comparing import Comparison
from tagsieve.ontology.config import AnalyzeConfig, NormalizeConfig
from tagsieve.ontology.normalization import ontology_rows, sample_tags, tag_counts


def normalize(context: Context, tagger: str, config: NormalizeConfig) -> None:
    """Make an ontology version of one tagger's raw tags, and the tags of each content under it.

    The row in `ontology_versions` is written last: a version without it was cut off, and is made
    again under the same name. The driver holds nothing that grows with the data.
    """
    run, lake, console = context.run, context.lake, context.console
    run.unit = "tag"
    run.reads("samples", "raw_tags")
    if run.done_before(tagger, config.model_dump()):
        return
    spark = context.engines.spark
    raw_tags = lake.read(spark, "raw_tags", run.read["raw_tags"]).where(F.col("tagger") == tagger)
    samples = lake.read(spark, "samples", run.read["samples"])
    versions = lake.arrow("ontology_versions", ["version", "tagger", "created"]).to_pylist()
    version = f"v{1 + max((int(row['version'][1:]) for row in versions), default=0)}"
    earlier = [row for row in versions if row["tagger"] == tagger]
    with console.spark_progress(spark, "normalize"):
        rows = ontology_rows(tag_counts(raw_tags, samples, config), config)
        lake.replace(rows.withColumn("version", F.lit(version)), "ontology", {"version": version})
        ontology = lake.read(spark, "ontology").where(F.col("version") == version)
        for row in ontology.groupBy("status").count().collect():
            if row["status"] == "kept":
                run.kept = row["count"]
            else:
                run.rejected[row["status"]] = row["count"]
        run.input = run.kept + run.rejected.total()
        if not run.input:
            answered = raw_tags.count()
            raise RunError(
                f"normalize: tagger {tagger} gave no tag to any of its {answered} queries; tag "
                "more data, or use a bank made for it (tag.banks)"
                if answered
                else f"normalize: no raw tags of tagger {tagger} in lake {lake.root}; run the step "
                "tag with the same tag settings first"
            )
        tags = sample_tags(samples, raw_tags, ontology)
        lake.replace(
            tags.withColumns({"tagger": F.lit(tagger), "ontology_version": F.lit(version)}),
            "tags",
            {"ontology_version": version},
        )
        final = ontology.agg(F.countDistinct("tag").alias("tags")).first()
    assert final is not None
    run.metrics["distinct_tags"] = float(final["tags"])
    made = {
        "version": version,
        "tagger": tagger,
        "parent": max(earlier, key=lambda row: row["created"])["version"] if earlier else None,
        "config": config.model_dump_json(),
        "read_versions": run.read,
        "created": datetime.now(UTC),
        "run_id": run.run_id,
    }
    lake.append_once("ontology_versions", rows_table("ontology_versions", [made]), run.run_id, 1)
    run.wrote("ontology", "tags", "ontology_versions")


def find_version(lake: Lake, tagger: str, config: NormalizeConfig) -> str:
    """The newest ontology version of this tagger and config; RunError where there is none."""
    columns = ["version", "tagger", "config", "created"]
    made = [
        row
        for row in lake.arrow("ontology_versions", columns).to_pylist()
        if row["tagger"] == tagger and row["config"] == config.model_dump_json()
    ]
    if not made:
        raise RunError(
            f"lake {lake.root} has no ontology version of tagger {tagger} with these normalize "
            "settings; run the step normalize first"
        )
    return str(max(made, key=lambda row: row["created"])["version"])


def analyze(context: Context, version: str, config: AnalyzeConfig) -> None:
    """Write `pool_stats`, `pool_recall` and `tag_funnel` of one ontology version.

    With `compare_tagger`, also `tagger_agreement` and `tagger_only_tags` of the version's tagger
    and that one, which are printed.
    """
    run, lake = context.run, context.lake
    run.unit = "sample"
    run.reads("samples", "tags", "ontology")
    # What is not set stays out: a lake analysed before there was a setting is still known.
    identity = config.model_dump(exclude_none=True)
    compared: Comparison | None = None
    output_of: str | None = ANY_RUN
    if config.compare_tagger is not None:
        run.reads("raw_tags")
        compared = Comparison.find(lake, version, config.compare_tagger, run.read["raw_tags"])
        identity["compare_tagger"] = compared.other
        output_of = compared.made_by(lake)
    if run.done_before(version, identity, output_of=output_of):
        if compared is not None:
            compared.show(lake, context.console)
        return
    spark = context.engines.spark
    with context.console.spark_progress(spark, "analyze"):
        if compared is not None:
            compared.write(context)  # first, as it may refuse
        tagged = pool_tags(lake, context, version).cache()
        stats = pool_stats(tagged)
        ontology = lake.read(spark, "ontology", run.read["ontology"])
        frames = {
            "pool_stats": stats,
            "pool_recall": pool_recall(tagged),
            "tag_funnel": funnel(ontology.where(F.col("version") == version)),
        }
        for name, frame in frames.items():
            partition = {"ontology_version": version}
            lake.replace(
                frame.withColumns({k: F.lit(v) for k, v in partition.items()}), name, partition
            )
        run.input = lake.read(spark, "samples", run.read["samples"]).count()
        run.kept = tagged.count()
        if run.input > run.kept:
            run.rejected["untagged"] = run.input - run.kept
        tagged.unpersist()
    run.wrote(*frames)
    if compared is not None:
        compared.show(lake, context.console)


def pool_tags(lake: Lake, context: Context, version: str) -> DataFrame:
    """`pool`, `sample_id`, `tags`, `turn_tags` of every tagged row of every pool."""
    spark, read = context.engines.spark, context.run.read
    tags = lake.read(spark, "tags", read["tags"]).where(F.col("ontology_version") == version)
    samples = lake.read(spark, "samples", read["samples"]).select("pool", "sample_id")
    return samples.join(tags.select("sample_id", "tags", "turn_tags"), "sample_id")
