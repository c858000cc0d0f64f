"""From files of any type to one frame of records.

Columns: `source`, `source_row` (0-based line, element or row of the file), `record` (a variant,
null where there is none), `payload` (the bytes as they came, for rejects) and `reason` (null, or
why there is no record: `invalid_utf8`, `unparsable`).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from tagsieve.errors import RunError, UsageError
from tagsieve.ingest.config import Input
from tagsieve.ingest.files import SourceFile, open_file
from tagsieve.ingest.json_arrays import ELEMENTS, read_elements

_READERS = 16
_HEAD = 64 * 1024
_HEADER = re.compile(rb'\s*+(?:[^"\r\n]|"[^"]*")*+[\r\n]')
_COLUMNS = ("source", "source_row", "record", "payload", "reason")


def read_records(spark: SparkSession, files: list[SourceFile]) -> DataFrame:
    """All records of `files`: a frame per type of file and its columns, whatever their number."""
    readers = {
        "json": _json_arrays,
        "jsonl": _json_lines,
        "csv": _csv,
        "parquet": _parquet,
        "delta": _delta,
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
    """CSV files: one frame per header, since each header has its own order."""
    frames = [_csv_group(spark, group) for group in _grouped(files, _head).values()]
    return reduce(DataFrame.unionByName, frames)


def _head(file: SourceFile) -> bytes:
    """The start of a CSV file up to the end of its header: files with the same have the same
    header. Where the end is not found the file is alone, unless it is empty."""
    try:
        with open_file(file.uri) as stream:
            read: bytes = stream.read(_HEAD)
    except OSError as error:
        raise UsageError(f"inputs: {file.uri} cannot be read: {error}") from error
    header = _HEADER.match(read)
    if header is not None:
        return header[0]
    return read and read + file.uri.encode()


def _csv_group(spark: SparkSession, files: list[SourceFile]) -> DataFrame:
    """CSV files of the same header."""
    # Read as Latin-1, which keeps every byte, so that invalid UTF-8 can be told field by field.
    reader = spark.read.options(header=True, multiLine=True, escape='"', encoding="ISO-8859-1")
    header = reader.csv(_path(files[0])).columns
    if not header:  # an empty file has no header, and no rows
        return _json_lines(spark, files)
    names = [_utf8(name.encode("iso-8859-1")).removeprefix("\ufeff") for name in header]
    columns = [f"field{place}" for place in range(len(names))]
    # Only a schema with a column for it makes Spark tell a row of more or fewer fields.
    schema = ", ".join(f"{name} string" for name in (*columns, "broken"))
    frame = reader.option("columnNameOfCorruptRecord", "broken").schema(schema).csv(_paths(files))
    fields = [
        _bytes(raw).cast("string").alias(name) for raw, name in zip(columns, names, strict=True)
    ]
    numbered = _numbered(frame, files).select(
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


def _parquet(spark: SparkSession, files: list[SourceFile]) -> DataFrame:
    """Parquet files: one frame per schema."""
    return _rows(spark, list(_grouped(files, _footer).values()))


def _footer(file: SourceFile) -> str:
    """The schema of a Parquet file. Raises UsageError where it has none."""
    try:
        with open_file(file.uri) as stream:
            schema = pq.ParquetFile(stream).schema
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"inputs: {file.uri} cannot be read as Parquet: {error}") from error
    return str(schema).partition("\n")[2]  # the first line is where it lies in memory


def _delta(spark: SparkSession, files: list[SourceFile]) -> DataFrame:
    """Delta tables: one frame each, since Spark takes one path."""
    return _rows(spark, [[file] for file in files])


def _rows(spark: SparkSession, groups: list[list[SourceFile]]) -> DataFrame:
    """Rows of files that have columns, those of each group with the same ones."""
    frames = []
    for files in groups:
        frame = spark.read.format(files[0].container).load(_paths(files))
        row = F.struct(*map(_column, frame.columns))
        numbered = _numbered(frame.select(row.alias("row"), "_metadata"), files)
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


def _grouped(
    files: list[SourceFile], key: Callable[[SourceFile], Hashable]
) -> dict[Hashable, list[SourceFile]]:
    """Files by a key that is read from each: many small reads at a time."""
    groups: dict[Hashable, list[SourceFile]] = {}
    with ThreadPoolExecutor(_READERS) as readers:
        for file, found in zip(files, readers.map(key, files), strict=True):
            groups.setdefault(found, []).append(file)
    return groups


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
    uris = {file.uri for file in files}
    table = files[0].uri if files[0].container == "delta" else None  # it has files of its own
    offsets, ends = [], dict[str, int]()
    for row in sorted(blocks.collect(), key=lambda row: (row["_path"], row["_block"])):
        source = table or _source(row["_path"], uris)
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


def _source(path: str, uris: set[str]) -> str:
    """The URI of the file that Spark shows as `path`: percent-encoded, `file:/` or `s3a://`."""
    plain = re.sub(r"^file:/+", "file:///", unquote(path)).replace("s3a://", "s3://", 1)
    for uri in (plain, path):
        if uri in uris:
            return uri
    raise RunError(f"Spark read {path}, which is none of the files that were listed")
