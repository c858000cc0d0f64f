"""What a strategy says of the candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context

CHOSEN = pa.schema(
    [
        ("pool", pa.string()),
        ("sample_id", pa.string()),
        ("rank", pa.int64()),
        ("score", pa.float64()),
        ("reason", pa.string()),
        ("nearest", pa.string()),
        ("similarity", pa.float64()),
    ]
)
REFUSED = pa.schema(
    [
        ("pool", pa.string()),
        ("sample_id", pa.string()),
        ("reason", pa.string()),
        ("nearest", pa.string()),
        ("similarity", pa.float64()),
    ]
)
UNUSABLE = pa.schema([("pool", pa.string()), ("sample_id", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class Outcome:
    """The rows that a strategy took, and of the others those of which it has more to say.

    `chosen`: columns of `CHOSEN`. `refused`: columns of `REFUSED`, complete only where the
    selection explains itself. `refusals`: how many there are by reason, complete. `unusable`:
    columns of `UNUSABLE`. What is in none of them was not looked at, or simply not taken.
    """

    chosen: DataFrame
    refused: DataFrame | None = None
    refusals: Mapping[str, int] = field(default_factory=dict)
    unusable: DataFrame | None = None


def ranked(rows: DataFrame, size: int, *order: Any) -> DataFrame:
    """The first `size` rows in an order, with their `rank` from 0."""
    # A limit leaves one sorted partition, in which the id that Spark counts up is the position.
    return rows.orderBy(*order).limit(size).withColumn("rank", F.monotonically_increasing_id())


def in_schema(rows: DataFrame, schema: pa.Schema) -> DataFrame:
    """The columns of a schema; those that the rows lack are null."""
    from pyspark.sql.pandas.types import from_arrow_type

    return rows.select(
        *(
            F.col(field.name) if field.name in rows.columns
            else F.lit(None).cast(from_arrow_type(field.type)).alias(field.name)
            for field in schema
        )
    )  # fmt: skip


class Parts:
    """Arrow tables of one schema that come one by one, for Spark to read: files in the run's work
    folder."""

    def __init__(self, context: Context, name: str, schema: pa.Schema) -> None:
        import fsspec

        self._context, self._schema = context, schema
        self._uri = context.lake.work_uri(context.run.run_id, name)
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
