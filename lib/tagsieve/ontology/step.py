"""The normalize and analyze steps: raw tags in; an ontology version, tags and figures out."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.errors import RunError
from tagsieve.lake import Lake, rows_table
from tagsieve.ledger import ANY_RUN
from tagsieve.ontology.analysis import pool_recall, pool_stats
from tagsieve.ontology.building import Build
from tagsieve.ontology.comparing import Comparison
from tagsieve.ontology.config import AnalyzeConfig, NormalizeConfig
from tagsieve.ontology.edits import Edits, load_edits
from tagsieve.ontology.normalization import sample_tags
from tagsieve.ontology.semantic import encoder_fingerprint


def normalize(context: Context, tagger: str, config: NormalizeConfig) -> None:
    """Make an ontology version of one tagger's raw tags, and the tags of each content under it.

    The row in `ontology_versions` is written last: a version without it was cut off, and is made
    again under the same name. The driver holds nothing that grows with the data.
    """
    run, lake, console = context.run, context.lake, context.console
    run.unit = "tag"
    run.reads("samples", "raw_tags")
    decided_by = identity(config)
    if run.done_before(tagger, decided_by):
        return
    spark = context.engines.spark
    raw_tags = lake.read(spark, "raw_tags", run.read["raw_tags"]).where(F.col("tagger") == tagger)
    samples = lake.read(spark, "samples", run.read["samples"])
    versions = lake.arrow("ontology_versions", ["version", "tagger", "created"]).to_pylist()
    version = f"v{1 + max((int(row['version'][1:]) for row in versions), default=0)}"
    earlier = [row for row in versions if row["tagger"] == tagger]
    with console.spark_progress(spark, "normalize: counting tags"):
        build = Build.begin(context, config, load_edits(config.edits), raw_tags, samples)
        if not build.stages[0]["tags"]:
            answered = raw_tags.count()
            raise RunError(
                f"normalize: tagger {tagger} gave no tag to any of its {answered} queries; tag "
                "more data, or use a bank made for it (tag.banks)"
                if answered
                else f"normalize: no raw tags of tagger {tagger} in lake {lake.root}; run the step "
                "tag with the same tag settings first"
            )
    per_query = build.finish()
    with console.spark_progress(spark, "normalize: writing"):
        of_version = {"version": version}
        lake.replace(build.rows.withColumn("version", F.lit(version)), "ontology", of_version)
        if build.rules is not None:
            lake.replace(
                build.rules.withColumn("version", F.lit(version)), "ontology_rules", of_version
            )
        of_version = {"ontology_version": version}
        lake.replace(
            sample_tags(samples, per_query).withColumns(
                {"tagger": F.lit(tagger), "ontology_version": F.lit(version)}
            ),
            "tags",
            of_version,
        )
        stages = spark.createDataFrame(
            rows_table("tag_funnel", (of_version | stage for stage in build.stages))
        )
        lake.replace(stages, "tag_funnel", of_version)
    for row in build.rows.groupBy("status").count().collect():
        if row["status"] == "kept":
            run.kept = row["count"]
        else:
            run.rejected[row["status"]] = row["count"]
    run.input = run.kept + run.rejected.total()
    run.metrics["distinct_tags"] = float(build.stages[-1]["tags"])
    made = {
        "version": version,
        "tagger": tagger,
        "parent": max(earlier, key=lambda row: row["created"])["version"] if earlier else None,
        **decided_by,
        "read_versions": run.read,
        "created": datetime.now(UTC),
        "run_id": run.run_id,
    }
    lake.append_once("ontology_versions", rows_table("ontology_versions", [made]), run.run_id, 1)
    run.wrote("ontology", "ontology_rules", "tags", "tag_funnel", "ontology_versions")


def identity(config: NormalizeConfig) -> dict[str, str | None]:
    """What decides a version of a tagger, as `ontology_versions` has it: the config without where
    it runs, the edits, the phrase encoder's fingerprint."""
    edits = load_edits(config.edits)
    encoded = "semantic" in config.steps
    return {
        "config": config.model_dump_json(exclude={"edits": True, "semantic": {"replicas"}}),
        "edits": None if edits == Edits() else edits.model_dump_json(),
        "encoder": encoder_fingerprint(config.semantic) if encoded else None,
    }


def find_version(lake: Lake, tagger: str, config: NormalizeConfig) -> str:
    """The newest ontology version of this tagger and config; RunError where there is none."""
    columns = ["version", "tagger", "config", "edits", "encoder", "created"]
    wanted = {"tagger": tagger, **identity(config)}
    made = [
        row
        for row in lake.arrow("ontology_versions", columns).to_pylist()
        if all(row[column] == value for column, value in wanted.items())
    ]
    if not made:
        raise RunError(
            f"lake {lake.root} has no ontology version of tagger {tagger} with these normalize "
            "settings; run the step normalize first"
        )
    return str(max(made, key=lambda row: row["created"])["version"])


def analyze(context: Context, version: str, config: AnalyzeConfig) -> None:
    """Write `pool_stats` and `pool_recall` of one ontology version.

    With `compare_tagger`, also `tagger_agreement` and `tagger_only_tags` of the version's tagger
    and that one, which are printed.
    """
    run, lake = context.run, context.lake
    run.unit = "sample"
    run.reads("samples", "tags")
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
        frames = {
            "pool_stats": stats,
            "pool_recall": pool_recall(tagged),
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
