"""Queries with their tags, as a tagger gave them or as a file has them: what taggers are trained
on and measured by."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve import records
from tagsieve.engines.context import Context
from tagsieve.engines.turns import distinct_queries
from tagsieve.errors import UsageError

_TAGS = "array<struct<tag: string, explanation: string>>"


def tagged_queries(context: Context, tagger: str, names: DataFrame | None = None) -> DataFrame:
    """`query_id`, `text` and `tags` of each query that a tagger has answered.

    `names`: `raw_tag` and the `tag` in its place (null or absent: none); a tag that several of a
    query become is there once, with the explanation of the first.
    """
    answers = context.pinned("raw_tags").where(F.col("tagger") == tagger)
    given = answers.select("query_id", "tags")
    if names is not None:
        given = _renamed(given, names)
    return distinct_queries(context.pinned("samples")).join(given, "query_id")


def _renamed(answers: DataFrame, names: DataFrame) -> DataFrame:
    named = (
        answers.select("query_id", F.posexplode("tags").alias("place", "item"))
        .select("query_id", "place", F.col("item.tag").alias("raw_tag"), "item.explanation")
        .join(names.where(F.col("tag").isNotNull()).select("raw_tag", "tag"), "raw_tag")
        .groupBy("query_id", "tag")
        .agg(F.min(F.struct("place", "explanation")).alias("first"))
        .groupBy("query_id")
        .agg(F.array_sort(F.collect_list(F.struct("first.place", "tag", "first.explanation")))
             .alias("listed"))
        .select("query_id", F.transform("listed", lambda each: each.dropFields("place"))
                .alias("tags"))
    )  # fmt: skip
    rest = answers.select("query_id").join(named, "query_id", "left")
    return rest.select("query_id", F.coalesce("tags", F.array().cast(_TAGS)).alias("tags"))


def queries_of_file(context: Context, setting: str, path: str) -> DataFrame:
    """As `tagged_queries`, of JSON lines (compressed by their ending) with `query` and `tags`; of
    lines with one query id each, the least.

    Raises UsageError, naming the setting, where the file cannot be read, is empty, or a line lacks
    one of them.
    """
    rows = read_rows(context, setting, path, f"query string, tags {_TAGS}")
    if not rows.where(F.col("query").isNull() | F.col("tags").isNull()).isEmpty():
        raise UsageError(
            f"{setting}={path}: a line lacks query (a text) or tags (a list of tag and explanation)"
        )
    keyed = rows.mapInArrow(_with_ids, f"query_id string, text string, tags {_TAGS}")
    least = F.min(F.struct("text", "tags")).alias("least")
    return keyed.groupBy("query_id").agg(least).select("query_id", "least.text", "least.tags")


def _with_ids(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
    for batch in batches:
        ids = pa.array([records.query_id(text) for text in batch["query"].to_pylist()], pa.string())
        columns = [ids, batch["query"], batch["tags"]]
        yield pa.RecordBatch.from_arrays(columns, ["query_id", "text", "tags"])


def check_file(setting: str, path: str) -> None:
    """Raise UsageError, naming the setting, for a path of this machine that is not there."""
    if not urlsplit(path).scheme and not Path(path).expanduser().exists():
        raise UsageError(f"{setting}={path}: no such file")


def read_rows(context: Context, setting: str, path: str, schema: str | None = None) -> DataFrame:
    """The rows of JSON lines or of Parquet files. Raises UsageError, naming the setting, where they
    cannot be read or there is none."""
    check_file(setting, path)
    spark, place = context.engines.spark, context.lake.spark_uri(path)
    try:
        if path.rstrip("/").endswith(".parquet"):
            rows = spark.read.parquet(place)
        else:
            rows = (spark.read.schema(schema) if schema else spark.read).json(place)
        empty = rows.isEmpty()
    except PySparkException as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"{setting}={path}: cannot be read: {reason}") from error
    if empty:
        raise UsageError(f"{setting}={path}: has no row")
    return rows
