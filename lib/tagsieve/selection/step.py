"""The select step: tagged samples in, one selection out."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.errors import RunError
from tagsieve.selection.complexity_first import complexity_first
from tagsieve.selection.config import SelectConfig


def select(context: Context, config: SelectConfig, version: str, pools: Sequence[str]) -> None:
    """Make the selection `config.name` from the tags of one ontology version.

    `pools`: in this order a pool keeps a conversation that others have too (pools not named
    follow, by name). Rejected reasons: `untagged` (no row in `tags`), `other_pool`,
    `not_selected`. Raises RunError on a shortfall when `shortfall` is `error`.
    """
    run, lake = context.run, context.lake
    run.unit = "sample"
    run.reads("samples", "tags")
    current = lake.run_of("selections", "selection", config.name)
    if run.done_before(config.model_dump(), version, list(pools), output_of=current):
        return
    spark = context.engines.spark
    spark.sparkContext.setCheckpointDir(lake.spark_uri(lake.work_uri(run.run_id, "checkpoints")))
    with context.console.spark_progress(spark, "select"):
        samples = lake.read(spark, "samples", run.read["samples"]).select("pool", "sample_id")
        tags = lake.read(spark, "tags", run.read["tags"])
        tags = tags.where(F.col("ontology_version") == version).select("sample_id", "tags")
        owners = first_pools(samples, pools) if config.dedupe == "pools" else samples
        candidates = owners.join(tags, "sample_id")
        chosen = complexity_first(candidates, config.size)
        chosen = chosen.withColumns(
            {"selection": F.lit(config.name), "run_id": F.lit(run.run_id)}
        ).persist()
        run.kept = chosen.count()
        missing = config.size - run.kept
        run.metrics |= {"shortfall": float(missing)}
        if missing and config.shortfall == "error":
            raise RunError(
                f"select.size={config.size}: {config.strategy} found {run.kept} rows with tags; "
                f"set select.size={run.kept}, add data, or set select.shortfall=report"
            )
        lake.replace(chosen, "selections", {"selection": config.name})
        run.input = samples.count()
        tagged = samples.join(tags, "sample_id").count()
        eligible = candidates.count()
        counts = {
            "untagged": run.input - tagged,
            "other_pool": tagged - eligible,
            "not_selected": eligible - run.kept,
        }
        run.rejected.update({reason: count for reason, count in counts.items() if count})
        if config.explain:
            lake.append(_explained(context, samples, tags, owners, chosen), "rejects")
        chosen.unpersist()
    run.wrote("selections", "rejects")


def first_pools(samples: DataFrame, pools: Sequence[str]) -> DataFrame:
    """One (`pool`, `sample_id`) per conversation: the first of `pools`, then by name."""
    order = F.array_position(F.array(*map(F.lit, pools)), F.col("pool")) if pools else F.lit(0)
    place = F.struct((order == 0).alias("unnamed"), order.alias("order"), F.col("pool"))
    return samples.groupBy("sample_id").agg(F.min_by("pool", place).alias("pool"))


def _explained(
    context: Context, samples: DataFrame, tags: DataFrame, owners: DataFrame, chosen: DataFrame
) -> DataFrame:
    """Rows for `rejects`: every sample that was not selected, with its reason."""
    key = ["pool", "sample_id"]
    sources = context.lake.read(context.engines.spark, "samples", context.run.read["samples"])
    sources = sources.select(*key, "source", "source_row")
    tagged = tags.select("sample_id", F.lit(True).alias("tagged"))
    own = owners.select(*key, F.lit(True).alias("own"))
    reason = F.when(F.col("tagged").isNull(), "untagged").when(F.col("own").isNull(), "other_pool")
    return (
        samples.join(chosen.select(*key), key, "left_anti")
        .join(tagged, "sample_id", "left")
        .join(own, key, "left")
        .join(sources, key)
        .select(
            F.lit(context.run.run_id).alias("run_id"),
            F.lit(context.run.step).alias("step"),
            "source",
            "source_row",
            "sample_id",
            reason.otherwise("not_selected").alias("reason"),
            F.lit(None).cast("binary").alias("payload"),
            F.lit(None).cast("long").alias("payload_bytes"),
            "pool",
        )
    )
