"""What Spark hands to Ray or the driver, and what comes back: folders of Parquet files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from tagsieve.engines.context import Context
from tagsieve.lake import Lake

READ_BYTES = 2**20


def write_rows(lake: Lake, frame: DataFrame, folder: str) -> int:
    """Write a Spark frame below the lake's work folder; gives its number of rows."""
    frame.write.mode("overwrite").parquet(lake.spark_uri(folder))
    return int(_dataset(folder).count_rows())


def read_chunks(folder: str, rows: int) -> Iterator[pa.Table]:
    """Tables of `rows` rows (the last one fewer), decoded as they are asked for.

    Not by a dataset's scanner, which holds whole row groups, read ahead: most of a file.
    """
    parts: list[pa.Table] = []
    held = 0
    for batch in _batches(_dataset(folder), rows):
        parts.append(pa.Table.from_batches([batch]))
        held += batch.num_rows
        while held >= rows:
            table = pa.concat_tables(parts)
            yield table.slice(0, rows).combine_chunks()
            parts, held = [table.slice(rows)], held - rows
    if held:
        yield pa.concat_tables(parts).combine_chunks()


def read_all(context: Context, name: str, frame: DataFrame) -> pa.Table:
    """A Spark frame that fits in memory, by files in the run's work folder: a collect would hold it
    more than once."""
    from pyspark.sql.pandas.types import to_arrow_schema

    folder = context.lake.work_uri(context.run.run_id, name)
    count = write_rows(context.lake, frame, folder)
    empty = to_arrow_schema(frame.schema).empty_table()
    return pa.concat_tables(read_chunks(folder, count)) if count else empty


class Parts:
    """Arrow tables of one schema that come one by one, for Spark to read: files in a folder of the
    run's work that is theirs alone, since a run may have several of one name."""

    def __init__(self, context: Context, name: str, schema: pa.Schema) -> None:
        import fsspec

        self._context, self._schema = context, schema
        own = f"{name}-{secrets.token_hex(8)}"
        self._uri = context.lake.work_uri(context.run.run_id, own)
        self._files, self._folder = fsspec.core.url_to_fs(self._uri)
        self._files.makedirs(self._folder, exist_ok=True)
        self._count = 0
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Write a table, unless it is empty."""
        if not table.num_rows:
            return
        table = table.select(self._schema.names).cast(self._schema)
        with self._files.open(f"{self._folder}/{self._count:06}.parquet", "wb") as stream:
            pq.write_table(table, stream)
        self._count += 1
        self.rows += table.num_rows

    def frame(self) -> DataFrame:
        """All rows, for Spark."""
        from pyspark.sql.pandas.types import from_arrow_schema

        spark, lake = self._context.engines.spark, self._context.lake
        schema = from_arrow_schema(self._schema)
        if not self._count:
            return spark.createDataFrame([], schema)
        return spark.read.schema(schema).parquet(lake.spark_uri(self._uri))


def _batches(dataset: ds.FileSystemDataset, rows: int) -> Iterator[pa.RecordBatch]:
    for path in dataset.files:
        with pq.ParquetFile(path, filesystem=dataset.filesystem, buffer_size=READ_BYTES) as file:
            yield from file.iter_batches(batch_size=rows)


def _dataset(folder: str) -> ds.FileSystemDataset:
    return ds.dataset(folder, format="parquet")
