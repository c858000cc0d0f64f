"""What Spark hands to Ray: a folder of Parquet files, read back in chunks."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import DataFrame

from tagsieve.lake import Lake


def write_rows(lake: Lake, frame: DataFrame, folder: str) -> int:
    """Write a Spark frame below the lake's work folder; gives its number of rows."""
    frame.write.mode("overwrite").parquet(lake.spark_uri(folder))
    return int(_dataset(folder).count_rows())


def read_chunks(folder: str, rows: int) -> Iterator[pa.Table]:
    """Tables of `rows` rows (the last one fewer); one, and what is read ahead, are in memory."""
    parts: list[pa.Table] = []
    held = 0
    for batch in _dataset(folder).to_batches(
        batch_size=rows, batch_readahead=1, fragment_readahead=1
    ):
        parts.append(pa.Table.from_batches([batch]))
        held += batch.num_rows
        while held >= rows:
            table = pa.concat_tables(parts)
            yield table.slice(0, rows).combine_chunks()
            parts, held = [table.slice(rows)], held - rows
    if held:
        yield pa.concat_tables(parts).combine_chunks()


def _dataset(folder: str) -> ds.Dataset:
    return ds.dataset(folder, format="parquet")
