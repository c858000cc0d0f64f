"""The normalize and analyze steps: raw tags in; an ontology version, tags and figures out."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.config import validate
from tagsieve.engines.context import Context
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import Lake, rows_table
from tagsieve.lease import lease
from tagsieve.ledger import ANY_RUN
from tagsieve.ontology.analysis import (
    pool_recall,
    pool_stats,
    pool_tag_uses,
    tag_coverage,
    tag_pairs,
)
from tagsieve.ontology.building import Build
from tagsieve.ontology.comparing import Comparison
from tagsieve.ontology.config import AnalyzeConfig, NormalizeConfig
from tagsieve.ontology.edits import Edits, FoundEdits, load_edits
from tagsieve.ontology.normalization import sample_tags
from tagsieve.ontology.semantic import encoder_fingerprint
from tagsieve.ontology.tracing import find_made
from tagsieve.ontology.updating import MAPPED, Update, updates_of


def normalize(context: Context, tagger: str, config: NormalizeConfig) -> None:
    """Make an ontology version of one tagger's raw tags, and the tags of each content under it; or
    let new rows join the version that is there.

    The driver holds the distinct tags after the rule step with their vectors, if there is a
    semantic step, and else nothing that grows with the data. One run at a time works in a lake,
    whatever its tagger, since versions are numbered; RunError for the second.
    """
    run = context.run
    run.unit = "tag"
    with lease(context.lake, "normalize", run.run_id):
        run.reads("samples", "raw_tags")
        made = _made(context.lake, tagger, config)
        if run.done_before(tagger, identity(config), config.version, config.update == "rebuild"):
            return
        if made is None or config.update == "rebuild" or not _update(context, made, config):
            _build(context, tagger, config)


def _build(context: Context, tagger: str, config: NormalizeConfig) -> None:
    """Make a version.

    The row in `ontology_versions` is written last: a version without it was cut off, and is made
    again under the same name.
    """
    run, lake, console = context.run, context.lake, context.console
    spark = context.engines.spark
    raw_tags = context.pinned("raw_tags").where(F.col("tagger") == tagger)
    samples = context.pinned("samples")
    versions = lake.arrow("ontology_versions", ["version", "tagger", "created"]).to_pylist()
    version = f"v{1 + max((int(row['version'][1:]) for row in versions), default=0)}"
    earlier = [row for row in versions if row["tagger"] == tagger]
    edits = load_edits(config.edits)
    with console.spark_progress(spark, "normalize: counting tags"):
        build = Build.begin(context, config, edits, raw_tags, samples)
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
        tags = sample_tags(samples, per_query).withColumn("tagger", F.lit(tagger))
        stages = spark.createDataFrame(
            rows_table("tag_funnel", build.stages).drop(["ontology_version"])
        )
        frames = {
            "ontology": ("version", build.rows.withColumn("update", F.lit(0).cast("long"))),
            "ontology_rules": ("version", build.rules),
            "ontology_items": ("version", build.items),
            "tags": ("ontology_version", tags),
            "tag_funnel": ("ontology_version", stages),
        }
        for name, (column, frame) in frames.items():
            if frame is None and lake.arrow(name, [column], [(column, "=", version)]).num_rows:
                # A build that was cut off took a step that this one does not take.
                frame = lake.read(spark, name, -1)
            if frame is not None:
                lake.replace(frame.withColumn(column, F.lit(version)), name, {column: version})
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
        **identity(config),
        "read_versions": run.read,
        "created": datetime.now(UTC),
        "run_id": run.run_id,
    }
    lake.append_once("ontology_versions", rows_table("ontology_versions", [made]), run.run_id, 1)
    run.wrote(*frames, "ontology_versions")


def _update(context: Context, made: dict[str, Any], config: NormalizeConfig) -> bool:
    """Let new rows join a version; False when a rebuild is due, and the version is not pinned.

    An update that was cut off is done first, of the same rows as then.
    """
    run, lake, console = context.run, context.lake, context.console
    version = made["version"]
    config, edits = _settings(made, config)
    rows = lake.arrow("ontology_updates", filters=[("version", "=", version)]).to_pylist()
    reads = [dict(row["read_versions"]) for row in sorted(rows, key=lambda row: row["update"])]
    done = lake.commits_of("tags", updates_of(version))
    if len(reads) == done or reads[-1] != run.read:
        reads.append(run.read)
    reads.insert(0, dict(made["read_versions"]))
    ways: Counter[str] = Counter()
    for number in range(done + 1, len(reads)):
        begun = number <= len(rows)
        update = Update(context, made, config, edits, number, reads[number - 1], reads[number])
        with console.spark_progress(context.engines.spark, f"normalize: update {number}"):
            if not update.find_new() and not begun:
                break
            drift = update.map_tags()
            if drift.due and config.update == "auto" and not begun:
                console.line(f"{version} is made anew: {drift.due}")
                return False
            update.write(drift, begun)
        console.line(f"{version}, update {number}: {drift.told()}")
        if drift.due:
            console.line(f"{version}: a rebuild is due: {drift.due}", style="yellow")
        ways.update(drift.ways)
        run.metrics |= {name: float(count) for name, count in drift.figures.items()}
        run.wrote("ontology", "ontology_updates", "tags")
    # Only now: a build after an update counts all raw tags itself.
    run.known = ways["known"] if ways else _raw_tags_of(lake, version)
    run.kept = sum(count for way, count in ways.items() if way in MAPPED and way != "known")
    run.rejected.update({way: count for way, count in ways.items() if way not in MAPPED})
    run.input = run.known + run.kept + run.rejected.total()
    return True


def _settings(made: dict[str, Any], config: NormalizeConfig) -> tuple[NormalizeConfig, FoundEdits]:
    """The settings and edits of a version; from the recipe only what decides nothing in it."""
    what = f"ontology version {made['version']}"
    own = validate(NormalizeConfig, json.loads(made["config"]), what)
    edits = Edits() if made["edits"] is None else validate(Edits, json.loads(made["edits"]), what)
    semantic = own.semantic.model_copy(update={"replicas": config.semantic.replicas})
    own = own.model_copy(
        update={
            "semantic": semantic,
            "update": "increment" if config.version else config.update,
            "rebuild_when": config.rebuild_when,
        }
    )
    if made["encoder"] is not None and encoder_fingerprint(semantic) != made["encoder"]:
        raise RunError(
            f"normalize: {what} was made with the phrase encoder {made['encoder']}, and "
            f"{semantic.encoder or 'the packaged one'} is another now "
            f"({encoder_fingerprint(semantic)}); put it back, or set normalize.update=rebuild"
        )
    return own, FoundEdits(edits, own)


def _raw_tags_of(lake: Lake, version: str) -> int:
    rows = lake.arrow("ontology", ["raw_tag"], filters=[("version", "=", version)])
    return int(pc.count_distinct(rows["raw_tag"]).as_py())


def identity(config: NormalizeConfig) -> dict[str, str | None]:
    """What decides a version of a tagger, as `ontology_versions` has it: the config without where
    it runs and when it is updated, the edits, the phrase encoder's fingerprint."""
    edits = load_edits(config.edits)
    encoded = "semantic" in config.steps
    beside = {"edits": True, "update": True, "rebuild_when": True, "version": True}
    return {
        "config": config.model_dump_json(exclude={**beside, "semantic": {"replicas"}}),
        "edits": None if edits == Edits() else edits.model_dump_json(),
        "encoder": encoder_fingerprint(config.semantic) if encoded else None,
    }


def _made(lake: Lake, tagger: str, config: NormalizeConfig) -> dict[str, Any] | None:
    """The row of `ontology_versions` of the pinned version, or of the newest one of this tagger and
    config. Raises UsageError when the pinned one is not there or of another tagger."""
    rows: list[dict[str, Any]] = lake.arrow("ontology_versions").to_pylist()
    if config.version is not None:
        pinned = find_made(lake, config.version)
        if pinned["tagger"] != tagger:
            raise UsageError(
                f"normalize.version={config.version}: it is of tagger {pinned['tagger']}, and the "
                f"recipe's is {tagger}; pin a version of that one, or set tag as it was"
            )
        return pinned
    wanted = {"tagger": tagger, **identity(config)}
    made = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return max(made, key=lambda row: row["created"], default=None)


def find_version(lake: Lake, tagger: str, config: NormalizeConfig) -> str:
    """The pinned ontology version, or the newest one of this tagger and config; RunError where
    there is none."""
    made = _made(lake, tagger, config)
    if made is None:
        raise RunError(
            f"lake {lake.root} has no ontology version of tagger {tagger} with these normalize "
            "settings; run the step normalize first"
        )
    return str(made["version"])


def analyze(context: Context, version: str, config: AnalyzeConfig) -> None:
    """Write `pool_stats`, `pool_recall`, `pool_tags`, `tag_pairs` and `tag_coverage` of one
    ontology version.

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
        tagged = pool_tags(context, version).cache()
        contents = tagged.select("sample_id", "tags").dropDuplicates(["sample_id"]).cache()
        frames = {
            "pool_stats": pool_stats(tagged),
            "pool_recall": pool_recall(tagged),
            "pool_tags": pool_tag_uses(tagged),
            "tag_pairs": tag_pairs(contents, config.pair_support, config.pair_tags),
            "tag_coverage": tag_coverage(contents),
        }
        for name, frame in frames.items():
            partition = {"ontology_version": version}
            lake.replace(
                frame.withColumns({k: F.lit(v) for k, v in partition.items()}), name, partition
            )
        run.input = context.pinned("samples").count()
        run.kept = tagged.count()
        if run.input > run.kept:
            run.rejected["untagged"] = run.input - run.kept
        contents.unpersist()
        tagged.unpersist()
    run.wrote(*frames)
    if compared is not None:
        compared.show(lake, context.console)


def pool_tags(context: Context, version: str) -> DataFrame:
    """`pool`, `sample_id`, `tags`, `turn_tags` of every tagged row of every pool."""
    tags = context.pinned("tags").where(F.col("ontology_version") == version)
    samples = context.pinned("samples").select("pool", "sample_id")
    return samples.join(tags.select("sample_id", "tags", "turn_tags"), "sample_id")
