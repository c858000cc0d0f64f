"""The ingest step: files in, `samples` and `rejects` out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import reduce

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.errors import UsageError
from tagsieve.ingest.config import IngestConfig, Input
from tagsieve.ingest.containers import export_dataset, read_records
from tagsieve.ingest.files import SourceFile, find_files
from tagsieve.ingest.identity import identify
from tagsieve.ingest.shapes import check_turns, read_shape
from tagsieve.lake import PAYLOAD_BYTES

STEP = "ingest"
DUPLICATE = "duplicate"


def ingest(context: Context, inputs: Sequence[Input], config: IngestConfig) -> None:
    """Read the inputs into `samples`; what is refused goes to `rejects` with its reason.

    A row is `known` when its conversation is in its pool already, or when the same bytes at the
    same place were rejected before: reading an input again adds nothing, reading a grown file adds
    what is new. Of equal conversations of one pool the least (source, source_row) stays, the
    others are `duplicate`. Holds the parsed rows on Spark's disks while it runs.
    """
    run, lake, console = context.run, context.lake, context.console
    run.unit = "row"
    listed = [
        _files(source, lake.work_uri(run.run_id, f"dataset-{position}"))
        for position, source in enumerate(inputs)
    ]
    _refuse_repeats(inputs, listed)
    described = [source.model_dump() for source in inputs]
    listing = [[(f.uri, f.size, f.modified) for f in files] for files in listed]
    datasets = any(source.dataset is not None for source in inputs)
    if not datasets and run.done_before(config.model_dump(), described, listing, context.limit):
        return
    spark = context.engines.spark
    with console.spark_progress(spark, "ingest"):
        parsed = _parse(spark, inputs, listed, config, context.limit)
        parsed.persist(StorageLevel.DISK_ONLY)
        try:
            _refuse_unknown_shapes(parsed, inputs)
            fates = classify(parsed, lake.read(spark, "samples"), lake.read(spark, "rejects"))
            fates.persist(StorageLevel.DISK_ONLY)
            for row in fates.groupBy("fate", "reason").count().collect():
                run.input += row["count"]
                if row["fate"] == "kept":
                    run.kept += row["count"]
                elif row["fate"] == "known":
                    run.known += row["count"]
                else:
                    run.rejected[row["reason"]] += row["count"]
            # Rejects first: killed in between, the next run knows them and still adds the samples.
            _write(context, parsed, fates, sorted({source.pool for source in inputs}))
            fates.unpersist()
        finally:
            parsed.unpersist()


def _files(source: Input, folder: str) -> list[SourceFile]:
    if source.dataset is None:
        return find_files(source)
    path = export_dataset(source, folder)
    return find_files(source.model_copy(update={"path": path, "dataset": None}))


def _place(source: Input, file: SourceFile) -> str:
    """What `source` says in the tables: the same in every run, wherever a data set was written."""
    if source.dataset is None:
        return file.uri
    parts = (source.dataset, source.subset, source.split)
    return f"hf://{'/'.join(part for part in parts if part)}"


def _refuse_repeats(inputs: Sequence[Input], listed: Sequence[list[SourceFile]]) -> None:
    """Raise UsageError when a pool names a file twice: each row would be counted twice."""
    seen: dict[tuple[str, str], int] = {}
    for position, (source, files) in enumerate(zip(inputs, listed, strict=True)):
        for file in files:
            place = _place(source, file)
            first = seen.setdefault((source.pool, place), position)
            if first != position:
                raise UsageError(
                    f"inputs.{position}: {place} is in inputs.{first} of pool {source.pool} too; "
                    "narrow one of the two paths"
                )


def _parse(
    spark: SparkSession,
    inputs: Sequence[Input],
    listed: Sequence[list[SourceFile]],
    config: IngestConfig,
    limit: int | None,
) -> DataFrame:
    """All rows of all inputs: where they come from, what they are, and `reason` (null: good)."""
    frames = []
    for shape, fields in dict.fromkeys((source.shape, source.fields) for source in inputs):
        of_shape = [
            (file, source.pool, source.target, position, _place(source, file))
            for position, (source, files) in enumerate(zip(inputs, listed, strict=True))
            if (source.shape, source.fields) == (shape, fields)
            for file in files
        ]
        records = read_records(spark, list(dict.fromkeys(file for file, *_ in of_shape)))
        places = spark.createDataFrame(
            [(file.uri, *place) for file, *place in of_shape],
            "uri string, pool string, target boolean, input int, source string",
        )
        records = records.withColumnRenamed("source", "uri").join(F.broadcast(places), "uri")
        if limit is not None:
            order = Window.partitionBy("input").orderBy("source", "source_row")
            numbered = records.withColumn("position", F.row_number().over(order))
            records = numbered.where(F.col("position") <= limit).drop("position")
        frames.append(read_shape(records, shape, fields).drop("record"))
    rows = check_turns(reduce(DataFrame.unionByName, frames), config)
    good = F.col("reason").isNull()
    identity = identify(config.min_language_score)
    rows = rows.withColumn("identity", identity(F.when(good, F.col("turns"))))
    if config.languages is not None:
        spoken = F.col("identity.lang").isin(*config.languages)
        rows = rows.withColumn(
            "reason", F.when(good & ~spoken, "language").otherwise(F.col("reason"))
        )
    good = F.col("reason").isNull()
    return rows.select(
        "input",
        "pool",
        "source",
        "source_row",
        "reason",
        F.col("identity.sample_id").alias("sample_id"),
        F.when(good, F.col("turns")).alias("turns"),
        F.col("identity.query_ids").alias("query_ids"),
        F.col("identity.lang").alias("lang"),
        F.when(good, F.col("meta") if config.meta else _empty_map()).alias("meta"),
        F.when(~good, F.substring("payload", 1, PAYLOAD_BYTES)).alias("payload"),
        F.when(~good, F.octet_length("payload")).cast("long").alias("payload_bytes"),
    )


def _empty_map() -> Column:
    return F.create_map().cast("map<string,string>")


def _refuse_unknown_shapes(parsed: DataFrame, inputs: Sequence[Input]) -> None:
    """Raise UsageError for an input of which no record at all has the expected fields."""
    unknown = F.col("reason") == "unknown_format"
    whole = F.col("payload_bytes") <= PAYLOAD_BYTES
    counts = parsed.groupBy("input").agg(
        F.count("*").alias("rows"),
        F.count_if(F.coalesce(unknown, F.lit(False))).alias("unknown"),
        F.min(F.when(unknown & whole, F.col("payload").cast("string"))).alias("example"),
    )
    messages = []
    for row in sorted(counts.where("rows = unknown").collect(), key=lambda row: row["input"]):
        source = inputs[row["input"]]
        fields = ", ".join(json.loads(row["example"])) if row["example"] else "too much to show"
        wanted = "of any known format" if source.shape == "auto" else f"of format {source.shape!r}"
        messages.append(
            f"inputs.{row['input']} ({source.path or source.dataset}): none of its {row['rows']} "
            f"records has the fields {wanted}; it has: {fields}. Set format to what it is, or name "
            "the fields: {query: ..., response: ...}"
        )
    if messages:
        raise UsageError("\n".join(messages))


def classify(parsed: DataFrame, samples: DataFrame, rejects: DataFrame) -> DataFrame:
    """The fate of each row: `kept`, `known` or `rejected`.

    Reads `pool`, `source`, `source_row`, `sample_id`, `reason`, `payload` of `parsed`; gives
    `source`, `source_row`, `pool`, `fate` and the final `reason`.
    """
    rows = parsed.select(
        "pool", "source", "source_row", "sample_id", "reason", F.xxhash64("payload").alias("bytes")
    )
    first = (
        rows.where(F.col("reason").isNull())
        .groupBy("pool", "sample_id")
        .agg(F.min(F.struct("source", "source_row")).alias("first"))
    )
    in_pool = samples.select("pool", "sample_id", F.lit(True).alias("in_pool"))
    rejected_before = (
        rejects.where(F.col("step") == STEP)
        .select(
            "pool", "source", "source_row", "reason", F.xxhash64("payload").alias("bytes"),
            F.lit(True).alias("rejected_before"),
        )
        .distinct()
    )  # fmt: skip
    is_first = F.col("first") == F.struct("source", "source_row")
    good = F.col("reason").isNull()
    with_reason = (
        rows.join(first, ["pool", "sample_id"], "left")
        .join(in_pool, ["pool", "sample_id"], "left")
        .withColumn("in_pool", good & F.coalesce("in_pool", F.lit(False)))
        .withColumn(
            "reason",
            F.when(good & ~F.col("in_pool") & ~is_first, DUPLICATE).otherwise(F.col("reason")),
        )
    )
    joined = with_reason.join(
        rejected_before, ["pool", "source", "source_row", "reason", "bytes"], "left"
    )
    known = F.col("in_pool") | F.coalesce("rejected_before", F.lit(False))
    fate = F.when(known, "known").when(F.col("reason").isNull(), "kept").otherwise("rejected")
    return joined.select("pool", "source", "source_row", "sample_id", "reason", fate.alias("fate"))


def _write(context: Context, parsed: DataFrame, fates: DataFrame, pools: list[str]) -> None:
    run, lake = context.run, context.lake
    place = ["pool", "source", "source_row"]
    if run.rejected:
        refused = fates.where("fate = 'rejected'").select(*place, F.col("reason").alias("why"))
        rejects = parsed.join(refused, place).select(
            F.lit(run.run_id).alias("run_id"),
            F.lit(STEP).alias("step"),
            "source",
            "source_row",
            "sample_id",
            F.col("why").alias("reason"),
            "payload",
            "payload_bytes",
            "pool",
        )
        lake.append(rejects, "rejects")
    if run.kept:
        new = fates.where("fate = 'kept'").select(*place)
        samples = parsed.join(new, place).withColumn("run_id", F.lit(run.run_id))
        added = lake.insert_new(samples, "samples", {"pool": pools})
        # The others were added by another run meanwhile.
        run.known += run.kept - added
        run.kept = added
    run.wrote("rejects", "samples")
