"""The tag step: queries without tags of this tagger in, `raw_tags` out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import commit_batches
from tagsieve.engines.ray import cores
from tagsieve.tagging.config import TagConfig
from tagsieve.tagging.memory import MemoryTagger, quarantine_key, tagger_fingerprint

if TYPE_CHECKING:
    import ray.data

READ_ROWS = 2048
"""Queries of one block handed to an actor: enough to fill the encoder's tiles, few enough that
progress moves and a dead actor repeats little."""


def tag(context: Context, config: TagConfig) -> None:
    """Tag every distinct query that has no row of this tagger yet, here or in quarantine.

    Spark finds the pending queries (an anti-join on `query_id`) and hands them to Ray as Parquet;
    actors tag Arrow batches; the driver commits micro-batches, and holds one of them at a time. A
    query of which the tagger is sure of nothing gets an empty tag list, counted as `abstained`; one
    that it cannot read goes to quarantine.
    """
    run, lake, console = context.run, context.lake, context.console
    run.unit = "query"
    run.reads("samples")
    tagger = tagger_fingerprint(config)
    if run.done_before(tagger, context.limit):
        return
    spark = context.engines.spark
    work = lake.work_uri(run.run_id, "queries")
    with console.spark_progress(spark, "tag"):
        samples = lake.read(spark, "samples", run.read["samples"])
        done = lake.read(spark, "raw_tags").where(F.col("tagger") == tagger)
        queries = distinct_queries(samples)
        quarantined = _quarantined(lake.read(spark, "quarantine"), tagger)
        seen = done.select("query_id").unionByName(quarantined)
        pending = queries.join(seen, "query_id", "left_anti")
        if context.limit is not None:
            pending = pending.orderBy("query_id").limit(context.limit)
        pending.write.parquet(lake.spark_uri(work))
        pending = spark.read.parquet(lake.spark_uri(work))
        count = pending.count()
        run.known = samples.select(F.explode("query_ids")).distinct().count() - count
        if context.limit is not None:
            run.known = 0
    run.input = run.known + count
    if count:
        progress = console.progress("tag", count, "queries")
        tagged = _tagged(context, config, tagger, work, count)
        abstained = 0
        for rows in commit_batches(
            lake, "raw_tags", tagged, run, progress, config.commit_rows, config.commit_seconds
        ):
            abstained += pc.sum(pc.equal(pc.list_value_length(rows["tags"]), 0)).as_py() or 0
        run.metrics["abstained"] = float(abstained)
    run.metrics["model_calls"] = float(count)
    run.wrote("raw_tags", "quarantine")


def _quarantined(quarantine: DataFrame, tagger: str) -> DataFrame:
    """`query_id` of what lies in quarantine for this tagger."""
    prefix = quarantine_key(tagger, "")
    still_open = (F.col("step") == "tag") & F.col("resolved_by").isNull()
    return quarantine.where(still_open & F.col("key").startswith(prefix)).select(
        F.expr(f"substring(key, {len(prefix) + 1})").alias("query_id")
    )


def distinct_queries(samples: DataFrame) -> DataFrame:
    """`query_id` and `text` of each distinct query; of texts with one id, the least is asked."""
    turns = F.filter("turns", lambda turn: turn["role"] == "user")
    contents = F.transform(turns, lambda turn: turn["content"])
    pairs = F.explode(F.arrays_zip(F.col("query_ids"), contents.alias("text"))).alias("pair")
    return (
        samples.select(pairs)
        .groupBy(F.col("pair.query_ids").alias("query_id"))
        .agg(F.min("pair.text").alias("text"))
    )


def _tagged(
    context: Context, config: TagConfig, tagger: str, work: str, count: int
) -> ray.data.Dataset:
    """The Ray pipeline: `query_id`, `tagger`, `tags`, `run_id` per pending query."""
    context.engines.ray()
    import ray

    threads = config.cpus_per_replica or max(
        1, cores(context.engines.ray_config) // config.replicas
    )
    queries = ray.data.read_parquet(work, columns=["query_id", "text"])
    blocks = max(1, -(-count // READ_ROWS))
    return queries.repartition(blocks, shuffle=False).map_batches(
        MemoryTagger,
        fn_constructor_kwargs={
            "config": config,
            "tagger": tagger,
            "run_id": context.run.run_id,
            "threads": threads,
        },
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=config.replicas),
        num_cpus=threads,
    )
