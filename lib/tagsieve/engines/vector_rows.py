"""Rows with vectors in a fixed order, in files of which any worker reads a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from tagsieve.engines.context import Context
from tagsieve.engines.vectors import Array

WRITTEN: dict[str, str | int | bool] = {
    # Of vectors read at once.
    "parquet.block.size": 16 * 2**20,
    # Vectors do not repeat and do not get smaller.
    "parquet.enable.dictionary": False,
    "compression": "none",
}

COLUMNS = {"pool": pa.string(), "sample_id": pa.string(), "score": pa.float64()}
"""What the files of a selection hold beside `vector`."""


@dataclass(frozen=True)
class Group:
    """A row group of a file; `first`: the position of its first row among all rows."""

    path: str
    number: int
    first: int
    rows: int


@dataclass(frozen=True)
class Bad:
    """Rows that no strategy can use: their positions, ascending, and why."""

    positions: Array
    reasons: list[str]

    def between(self, start: int, stop: int) -> Bad:
        """Those from a position to another."""
        first, last = np.searchsorted(self.positions, [start, stop])
        return Bad(self.positions[first:last], self.reasons[first:last])


class VectorRows:
    """Rows with `vector` and other columns (`COLUMNS`), in the order of their positions."""

    def __init__(self, folder: str, groups: Sequence[Group], width: int) -> None:
        self._folder, self.groups, self.width = folder, groups, width

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(group.rows for group in self.groups)

    def read(self, group: Group, columns: Sequence[str]) -> pa.Table:
        """Columns of a group."""
        files, _ = pyarrow.fs.FileSystem.from_uri(self._folder)
        with pq.ParquetFile(group.path, filesystem=files) as file:
            return file.read_row_group(group.number, columns=list(columns)).combine_chunks()

    def vectors(self, group: Group) -> tuple[Array, Array, Bad]:
        """The positions (int64 [n]) and vectors (float32 [n, width]) of the usable rows of a group,
        and its other rows.

        Reasons: `vector_width` for another width than that of most rows, `nan_vector` for numbers
        that are not finite, `zero_vector`.
        """
        lists = self.read(group, ["vector"])["vector"].combine_chunks()
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
        fits = lengths == self.width
        flat = lists.filter(pa.array(fits)).flatten().to_numpy(zero_copy_only=False)
        vectors = np.ascontiguousarray(flat.reshape(fits.sum(), self.width), dtype=np.float32)
        squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
        places = np.flatnonzero(fits)
        usable = np.isfinite(squares) & (squares > 0)
        reasons = np.full(group.rows, "vector_width", dtype=object)
        reasons[places] = np.where(np.isfinite(squares), "zero_vector", "nan_vector")
        bad = np.setdiff1d(np.arange(group.rows), places[usable])
        return (
            group.first + places[usable],
            vectors[usable],
            Bad(group.first + bad, reasons[bad].tolist()),
        )

    def at(self, positions: Array, columns: Sequence[str]) -> pa.Table:
        """Columns of the rows at some positions, in their order; held in memory."""
        order = np.argsort(positions, kind="stable")
        ascending = positions[order]
        empty = pa.schema([(name, COLUMNS[name]) for name in columns]).empty_table()
        parts = [empty]
        for group in self.groups:
            start, stop = np.searchsorted(ascending, [group.first, group.first + group.rows])
            if stop > start:
                places = pa.array(ascending[start:stop] - group.first)
                parts.append(self.read(group, columns).take(places).cast(empty.schema))
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_tables(parts).take(pa.array(back))

    def shares(self, count: int) -> list[list[Group]]:
        """The groups in `count` runs of neighbours of about as many rows each."""
        ends = np.cumsum([group.rows for group in self.groups])
        place = (ends - 1) * count // max(self.count, 1)
        return [
            [group for group, each in zip(self.groups, place, strict=True) if each == share]
            for share in range(count)
        ]


def write_vectors(
    context: Context,
    rows: DataFrame,
    name: str,
    columns: Sequence[str] = tuple(COLUMNS),
    again: bool = True,
) -> VectorRows:
    """Write a Spark frame (`columns`, `vector`) to the run's work folder, from where workers read
    it; a sorted one keeps its order. `again`: as in `Context.stored`."""
    folder = context.lake.work_uri(context.run.run_id, name)
    if again or not context.has_stored(name):
        writer = rows.select(*columns, "vector").write.mode("overwrite").options(**WRITTEN)
        writer.parquet(context.lake.spark_uri(folder))
    return vectors_in(folder)


def vectors_in(folder: str) -> VectorRows:
    """The rows of a folder that Spark wrote with the options `WRITTEN`."""
    groups = tuple(_groups(folder))
    return VectorRows(folder, groups, _width(VectorRows(folder, groups, 0)))


def _groups(folder: str) -> Iterator[Group]:
    files, root = pyarrow.fs.FileSystem.from_uri(folder)
    first = 0
    # The partitions of a sorted frame, and so the names of their files, are in order.
    names = sorted(info.path for info in files.get_file_info(pyarrow.fs.FileSelector(root)))
    for path in names:
        if not path.endswith(".parquet"):
            continue
        with pq.ParquetFile(path, filesystem=files) as file:
            for number in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(number).num_rows
                yield Group(path, number, first, rows)
                first += rows


def _width(rows: VectorRows) -> int:
    """The most frequent width in the first group."""
    if not rows.groups:
        return 0
    lists = rows.read(rows.groups[0], ["vector"])["vector"]
    widths = pc.list_value_length(lists).drop_null().to_numpy()
    return int(np.bincount(widths).argmax()) if len(widths) else 0
