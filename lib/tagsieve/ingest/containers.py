"""From files of any type to one frame of records.

Columns: `source`, `source_row` (0-based line, element or row of the file), `record` (a variant,
null where there is none), `payload` (the bytes as they came, for rejects) and `reason` (null, or
why there is no record: `invalid_utf8`, `unparsable`).
"""

from __future__ import annotations

import importlib.util
import re
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from tagsieve.errors import RunError, UsageError
from tagsieve.ingest.config import Input
from tagsieve.ingest.json_arrays import ELEMENTS, read_elements

if TYPE_CHECKING:
    from tagsieve.ingest.files import SourceFile

_COLUMNS = ("source", "source_row", "record", "payload", "reason")


def read_records(spark: SparkSession, files: list[SourceFile]) -> DataFrame:
    """All records of `files`: one frame per type of file, whatever their number."""
    readers = {
        "json": _json_arrays,
        "jsonl": _json_lines,
        "csv": _csv,
        "parquet": _rows,
        "delta": _rows,
    }
    frames = []
    for kind in sorted({file.container for file in files}):
        of_kind = [file for file in files if file.container == kind]
        frames.append(readers[kind](spark, of_kind).select(*_COLUMNS))
    return reduce(DataFrame.unionByName, frames)


def export_dataset(source: Input, folder: str) -> str:
    """Write a Hugging Face data set (by name, from the local cache, or made by save_to_disk) as
    one Parquet file below `folder`; gives its path. Raises UsageError when it cannot be had."""
    need_datasets()
    import datasets

    assert source.dataset is not None
    try:
        if (Path(source.dataset) / "state.json").exists():
            data = datasets.load_from_disk(source.dataset)
        elif (Path(source.dataset) / "dataset_dict.json").exists():
            data = datasets.load_from_disk(f"{source.dataset}/{source.split}")
        else:
            data = datasets.load_dataset(source.dataset, source.subset, split=source.split)
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise UsageError(
            f"inputs: dataset {source.dataset!r}, split {source.split!r}, cannot be had: {error}"
        ) from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    target = f"{folder}/{source.pool}.parquet"
    data.to_parquet(target)
    return target


def need_datasets() -> None:
    """Raise UsageError unless the Hugging Face library is installed."""
    if importlib.util.find_spec("datasets") is None:
        raise UsageError(
            "inputs: dataset needs the Hugging Face library: pip install 'tagsieve[hf]'"
        )


def _json_lines(spark: SparkSession, files: list[SourceFile]) -> DataFrame:
    lines = _numbered(spark.read.text(_paths(files)), files)
    value = F.col("value")
    first = (F.col("source_row") == 0) & value.startswith("\ufeff")
    text = F.when(first, F.substring(value, 2, 2**31 - 1)).otherwise(value)
    return _parsed(lines.withColumn("text", text).where(F.trim("text") != ""), F.lit(True))


def _parsed(frame: DataFrame, whole: Column) -> DataFrame:
    """Parse `text` (bytes that should be UTF-8) into `record` where it is `whole`."""
    # Neither Spark's text source nor a cast changes invalid bytes: they are seen here, and kept in
    # the payload.
    valid = F.is_valid_utf8("text")
    one = whole & valid & _is_one_value(F.col("text"))
    frame = frame.withColumn("record", F.when(one, F.expr("try_parse_json(text)")))
    reason = F.when(whole & ~valid, "invalid_utf8").when(F.col("record").isNull(), "unparsable")
    return frame.select(
        "source",
        "source_row",
        "record",
        F.col("text").cast("binary").alias("payload"),
        reason.alias("reason"),
    )


def _is_one_value(text: Column) -> Column:
    """Whether nothing follows the first JSON value of a text, which Spark's parsers do not look at.

    What follows it in a list is a comma or a bracket, in an object a comma or a brace; after a
    comma a list goes on with a value, an object with a name. So only the end fits both.
    """
    listed = F.json_array_length(F.concat(F.lit("["), text, F.lit("]"))) == 1
    named = F.json_object_keys(F.concat(F.lit('{"":'), text, F.lit("}"))).isNotNull()
    return F.coalesce(listed, F.lit(False)) & named


def _json_arrays(spark: SparkSession, files: list[SourceFile]) -> DataFrame:
    tasks = min(len(files), 4 * spark.sparkContext.defaultParallelism)
    sources = spark.createDataFrame([(file.uri,) for file in files], "source string")
    elements = sources.repartition(tasks).mapInArrow(read_elements, from_arrow_schema(ELEMENTS))
    return _parsed(elements.withColumn("text", F.col("payload").cast("string")), F.col("whole"))


def _csv(spark: SparkSession, files: list[SourceFile]) -> DataFrame:
    """CSV files: one frame each, since each header has its own order."""
    return reduce(DataFrame.unionByName, (_csv_file(spark, file) for file in files))


def _csv_file(spark: SparkSession, file: SourceFile) -> DataFrame:
    # Read as Latin-1, which keeps every byte, so that invalid UTF-8 can be told field by field.
    reader = spark.read.options(header=True, multiLine=True, escape='"', encoding="ISO-8859-1")
    header = reader.csv(_path(file)).columns
    if not header:  # an empty file has no header, and no rows
        return _json_lines(spark, [file])
    names = [_utf8(name.encode("iso-8859-1")).removeprefix("\ufeff") for name in header]
    columns = [f"field{place}" for place in range(len(names))]
    # Only a schema with a column for it makes Spark tell a row of more or fewer fields.
    schema = ", ".join(f"{name} string" for name in (*columns, "broken"))
    frame = reader.option("columnNameOfCorruptRecord", "broken").schema(schema).csv(_path(file))
    fields = [
        _bytes(raw).cast("string").alias(name) for raw, name in zip(columns, names, strict=True)
    ]
    numbered = _numbered(frame, [file]).select(
        "source", "source_row", _bytes("broken").alias("broken"), F.struct(*fields).alias("row")
    )
    valid = reduce(
        Column.__and__,
        (F.coalesce(F.is_valid_utf8(F.col("row")[name]), F.lit(True)) for name in names),
    )
    whole = F.col("broken").isNull()
    return numbered.select(
        "source",
        "source_row",
        F.when(whole & valid, F.to_variant_object("row")).alias("record"),
        F.coalesce("broken", F.to_json("row").cast("binary")).alias("payload"),
        F.when(~whole, "unparsable").when(~valid, "invalid_utf8").alias("reason"),
    )


def _bytes(name: str) -> Column:
    """The bytes of a field that was read as Latin-1."""
    return F.encode(name, "ISO-8859-1")


def _column(name: str) -> Column:
    """The top-level column of any name."""
    return F.col("`{}`".format(name.replace("`", "``")))


def _utf8(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _rows(spark: SparkSession, files: list[SourceFile]) -> DataFrame:
    """Parquet files or Delta tables: one frame each where their schemas may differ."""
    frames = []
    for file in files:
        frame = spark.read.format(file.container).load(_path(file))
        row = F.struct(*map(_column, frame.columns))
        numbered = _numbered(frame.select(row.alias("row"), "_metadata"), [file])
        frames.append(
            numbered.select(
                "source",
                "source_row",
                F.to_variant_object("row").alias("record"),
                F.to_json("row").cast("binary").alias("payload"),
                F.lit(None).cast("string").alias("reason"),
            )
        )
    return reduce(DataFrame.unionByName, frames)


def _numbered(frame: DataFrame, files: list[SourceFile]) -> DataFrame:
    """Add `source` and `source_row` (0-based within the source) to a frame read from `files`.

    A large file is read in blocks by several tasks, so a block's rows are numbered from where the
    block before it ended; the data files of a Delta table count on in the order of their names.
    Spark plans the same blocks into the same partitions each time, which makes the first row of a
    block the least monotonically increasing id in both passes. The first pass only counts rows;
    what the driver gets is one line per block.
    """
    with_ids = frame.select(
        "*",
        F.col("_metadata.file_path").alias("_path"),
        F.col("_metadata.file_block_start").alias("_block"),
        F.monotonically_increasing_id().alias("_id"),
    )
    blocks = with_ids.groupBy("_path", "_block").agg(
        F.min("_id").alias("first"), F.count("*").alias("rows")
    )
    offsets, ends = [], dict[str, int]()
    for row in sorted(blocks.collect(), key=lambda row: (row["_path"], row["_block"])):
        source = _source(row["_path"], files)
        start = ends.get(source, 0)
        offsets.append((row["_path"], row["_block"], source, start - row["first"]))
        ends[source] = start + row["rows"]
    schema = "_path string, _block long, source string, _shift long"
    shifts = frame.sparkSession.createDataFrame(offsets, schema)
    return (
        with_ids.join(F.broadcast(shifts), ["_path", "_block"])
        .withColumn("source_row", F.col("_id") + F.col("_shift"))
        .drop("_path", "_block", "_id", "_shift")
    )


def _paths(files: list[SourceFile]) -> list[str]:
    return [_path(file) for file in files]


def _path(file: SourceFile) -> str:
    """The URI as Spark reads it: s3a for s3; glob signs in a real name are escaped."""
    uri = file.uri
    if uri.startswith("s3://"):
        uri = uri.replace("s3://", "s3a://", 1)
    if file.container == "delta":
        return uri  # Delta takes a path as it is
    return "".join(f"\\{sign}" if sign in "*?[]{}" else sign for sign in uri)


def _source(path: str, files: list[SourceFile]) -> str:
    """The URI of the file that Spark shows as `path`: percent-encoded, `file:/` or `s3a://`."""
    uris = {file.uri for file in files}
    plain = re.sub(r"^file:/+", "file:///", unquote(path)).replace("s3a://", "s3://", 1)
    if files[0].container == "delta":
        return files[0].uri  # a table is read alone, and its data files are its own
    for uri in (plain, path):
        if uri in uris:
            return uri
    raise RunError(f"Spark read {path}, which is none of the files that were listed")
