"""The embed step: conversations without a vector of this encoder in, `embeddings` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.embedding.config import EmbedConfig
from tagsieve.embedding.embedder import actors_of
from tagsieve.embedding.encoders import encoder_fingerprint
from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import Writer
from tagsieve.engines.pending import do_pending
from tagsieve.engines.quarantine import quarantined, try_again
from tagsieve.engines.turns import human_turns
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
    run = context.run
    run.unit = "sample"
    run.reads("samples")
    encoder = encoder_fingerprint(config)
    if run.done_before(encoder, context.limit):
        return
    with lease(context.lake, _lease(encoder), run.run_id):
        writer = _writer(context, encoder)
        rows = conversations(context, config)
        seen = embedded(context, encoder).unionByName(quarantined(context, encoder, "sample_id"))

        def count_known(count: int) -> None:
            run.known = rows.count() - count if context.limit is None else 0
            run.input = run.known + count

        pending = rows.join(seen, "sample_id", "left_anti")
        _embed(context, config, encoder, writer, pending, count_known)
    run.wrote("embeddings", "quarantine")


def replay(context: Context, config: EmbedConfig, reasons: Sequence[str] = ()) -> None:
    """Embed what lies in quarantine for this encoder, for any of `reasons` (none: for all).

    What has a vector now gets its row in `embeddings`; what fails again lies in quarantine anew.
    Either way its older quarantine row names this run in `resolved_by`. Raises RunError when
    nothing lies there.
    """
    run = context.run
    run.unit = "sample"
    run.reads("samples", "quarantine")
    encoder = encoder_fingerprint(config)
    with lease(context.lake, _lease(encoder), run.run_id):
        writer = _writer(context, encoder)

        def done() -> DataFrame:
            return embedded(context, encoder)

        def again(pending: DataFrame) -> int:
            return _embed(context, config, encoder, writer, pending)

        rows = conversations(context, config)
        try_again(context, encoder, "sample_id", rows, done, again, reasons)
    run.wrote("embeddings", "quarantine")


def _lease(encoder: str) -> str:
    return f"embed-{encoder}"


def _writer(context: Context, encoder: str) -> Writer:
    """The one writer of an encoder's rows; made before what is done already is looked up."""
    return Writer(context.lake, "embeddings", f"embed {encoder}")


def _embed(
    context: Context,
    config: EmbedConfig,
    encoder: str,
    writer: Writer,
    pending: DataFrame,
    found: Callable[[int], None] = lambda count: None,  # noqa: ARG005
) -> int:
    """Have the `pending` conversations (at most the context's limit) embedded, and commit the
    vectors; gives how many there were."""
    if context.limit is not None:
        pending = pending.orderBy("sample_id").limit(context.limit)
    context.engines.ray()
    actors = actors_of(config, encoder, context.run.run_id, context.engines.ray_config)
    return do_pending(context, actors, config, writer, together(pending), "samples", found)


def conversations(context: Context, config: EmbedConfig) -> DataFrame:
    """`sample_id` and the `turns` to embed of each distinct conversation; where pools have it with
    other white space, of the least."""
    samples = context.pinned("samples")
    turns = samples.groupBy("sample_id").agg(F.min("turns").alias("turns"))
    return turns.withColumn("turns", embedded_turns(config))


def embedded_turns(config: EmbedConfig) -> Column:
    """Those of `turns` that are embedded."""
    human = human_turns()
    if config.text == "instruction":
        return F.slice(human, 1, 1)
    return human if config.text == "query" else F.col("turns")


def embedded(context: Context, encoder: str) -> DataFrame:
    """`sample_id` of what has a vector of an encoder."""
    rows = context.lake.read(context.engines.spark, "embeddings")
    return rows.where(F.col("encoder") == encoder).select("sample_id")


def together(rows: DataFrame) -> DataFrame:
    """`rows` with equal `turns` beside each other, those with the most text first."""
    contents = F.transform("turns", lambda turn: F.char_length(turn["content"]))
    length = F.aggregate(contents, F.lit(0), lambda total, part: total + part)
    same = F.xxhash64("turns")
    ordered = rows.withColumns({"_length": length, "_same": same}).repartition("_same")
    ordered = ordered.sortWithinPartitions(F.desc("_length"), "_same", "sample_id")
    return ordered.drop("_length", "_same")
