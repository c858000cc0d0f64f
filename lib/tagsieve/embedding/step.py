"""The embed step: conversations without a vector of this encoder in, `embeddings` out."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.embedding.config import EmbedConfig
from tagsieve.embedding.embedder import actors_of, quarantine_key
from tagsieve.embedding.encoders import encoder_fingerprint
from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import Writer
from tagsieve.engines.pending import do_pending
from tagsieve.lease import lease


def embed(context: Context, config: EmbedConfig) -> None:
    """Give every distinct conversation that has no row of this encoder yet, here or in quarantine,
    its vector.

    Spark finds the pending ones (an anti-join on `sample_id`) and hands them over as Parquet, equal
    texts beside each other and texts of about one length together; Ray actors encode chunks of
    them; the driver commits micro-batches, and holds one of them and the chunks at the actors at a
    time. A text that many conversations share is encoded once for each chunk that they fill. One
    run at a time works for an encoder; RunError for the second.
    """
    run, lake = context.run, context.lake
    run.unit = "sample"
    run.reads("samples")
    encoder = encoder_fingerprint(config)
    if run.done_before(encoder, context.limit):
        return
    with lease(lake, f"embed-{encoder}", run.run_id):
        writer = Writer(lake, "embeddings", f"embed {encoder}")
        samples = lake.read(context.engines.spark, "samples", run.read["samples"])
        pending = unembedded(context, conversations(samples, config), encoder)
        if context.limit is not None:
            pending = pending.orderBy("sample_id").limit(context.limit)

        def count_known(count: int) -> None:
            whole = context.limit is None
            run.known = samples.select("sample_id").distinct().count() - count if whole else 0
            run.input = run.known + count

        context.engines.ray()
        actors = actors_of(config, encoder, run.run_id, context.engines.ray_config)
        do_pending(context, actors, config, writer, together(pending), "samples", count_known)
    run.wrote("embeddings", "quarantine")


def conversations(samples: DataFrame, config: EmbedConfig) -> DataFrame:
    """`sample_id` and the `turns` to embed of each distinct conversation; where pools have it with
    other white space, of the least."""
    turns = samples.groupBy("sample_id").agg(F.min("turns").alias("turns"))
    return turns.withColumn("turns", embedded_turns(config))


def embedded_turns(config: EmbedConfig) -> Column:
    """Those of `turns` that are embedded."""
    human = F.filter("turns", lambda turn: turn["role"] == "user")
    if config.text == "instruction":
        return F.slice(human, 1, 1)
    return human if config.text == "query" else F.col("turns")


def unembedded(context: Context, rows: DataFrame, encoder: str) -> DataFrame:
    """Those of `rows` that have no vector of an encoder and do not lie in quarantine for it."""
    lake, spark = context.lake, context.engines.spark
    done = lake.read(spark, "embeddings").where(F.col("encoder") == encoder)
    prefix = quarantine_key(encoder, "")
    failed = lake.read(spark, "quarantine").where(
        F.col("key").startswith(prefix) & F.col("resolved_by").isNull()
    )
    ids = failed.select(F.expr(f"substring(key, {len(prefix) + 1})").alias("sample_id"))
    return rows.join(done.select("sample_id").unionByName(ids), "sample_id", "left_anti")


def together(rows: DataFrame) -> DataFrame:
    """`rows` with equal `turns` beside each other, those with the most text first."""
    contents = F.transform("turns", lambda turn: F.char_length(turn["content"]))
    length = F.aggregate(contents, F.lit(0), lambda total, part: total + part)
    same = F.xxhash64("turns")
    ordered = rows.withColumns({"_length": length, "_same": same}).repartition("_same")
    ordered = ordered.sortWithinPartitions(F.desc("_length"), "_same", "sample_id")
    return ordered.drop("_length", "_same")
