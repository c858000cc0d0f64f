"""InsTag's Algorithm 1, complexity-first diverse sampling, in two exact forms: passes by Spark, and
one scan."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.handover import Parts, read_chunks, write_rows
from tagsieve.engines.vectors import Array
from tagsieve.selection.outcome import CHOSEN, ranked

MANY_PASSES = 4
"""A selection of more rows than this times the number of tags is found by one scan: a pass takes at
most as many rows as there are tags."""

SCAN_ROWS = 2**16

KEY = ["pool", "sample_id"]


def complexity_first(
    context: Context, rows: DataFrame, size: int, passes: int | None = None
) -> DataFrame:
    """Select up to `size` rows by the form that suits it: `pool`, `sample_id`, `rank`, `score`,
    `reason`, as `by_passes`, which says what is read and needed."""
    if passes is not None:
        return by_passes(rows, size, passes)
    tags = rows.select(F.explode("tags").alias("tag")).distinct().count()
    if size > MANY_PASSES * tags:
        return by_scan(context, rows, size)
    return by_passes(rows, size)


def by_scan(context: Context, rows: DataFrame, size: int) -> DataFrame:
    """As `by_passes`, by one scan in the algorithm's order.

    With a counter for each tag, the number of passes that had the tag before, a row is taken in
    pass p, the least of its tags' counters; p then goes up by one for those of its tags that stood
    at p. So all passes are known after one scan, which is sequential by nature, on the driver: it
    holds the counters and, of the rows so far, those that may be among the `size` first.
    """
    tagged = rows.where(F.size("tags") > 0).select("pool", "sample_id", "tags")
    in_order = tagged.orderBy(F.size("tags").desc(), "sample_id", "pool")
    folder = context.lake.work_uri(context.run.run_id, "by-complexity")
    with context.console.spark_progress(context.engines.spark, "select: in order of complexity"):
        count = write_rows(context.lake, in_order, folder)
    taken: list[pa.Table] = []
    reached = np.zeros(0, dtype=np.int64)
    progress = context.console.progress("select: scan", count, "rows")
    for table, passes in _scanned(folder) if count else ():
        progress.advance(table.num_rows)
        reached = _sum(reached, np.bincount(passes))
        # Later rows can only push rows of later passes out.
        last = np.searchsorted(np.cumsum(reached), size)
        kept = passes <= last
        lengths = table["tags"].combine_chunks().value_lengths()
        found = table.select(["pool", "sample_id"]).append_column("score", lengths)
        found = found.append_column("pass", pa.array(passes))
        taken.append(found.filter(pa.array(kept)))
        if sum(part.num_rows for part in taken) > 2 * size + SCAN_ROWS:
            together = pa.concat_tables(taken)
            taken = [together.filter(pa.array(together["pass"].to_numpy() <= last))]
    parts = Parts(context, "taken", CHOSEN)
    if taken:
        parts.add(_first(pa.concat_tables(taken), size))
    return parts.frame().select("pool", "sample_id", "rank", "score", "reason")


def _scanned(folder: str) -> Iterator[tuple[pa.Table, Array]]:
    """Rows in their order, and the pass of each, from 0."""
    numbers: dict[str, int] = {}
    counters: list[int] = []
    for table in read_chunks(folder, SCAN_ROWS):
        lists = table["tags"].combine_chunks()
        tags = lists.flatten().dictionary_encode()
        new = [tag for tag in tags.dictionary.to_pylist() if tag not in numbers]
        numbers.update(zip(new, range(len(numbers), len(numbers) + len(new)), strict=True))
        counters += [0] * len(new)
        number = np.array([numbers[tag] for tag in tags.dictionary.to_pylist()], dtype=np.int64)
        mine = number[tags.indices.to_numpy()].tolist()
        ends = np.cumsum(lists.value_lengths().to_numpy()).tolist()
        passes, start = [], 0
        for end in ends:
            row = mine[start:end]
            least = min([counters[tag] for tag in row])
            for tag in row:
                if counters[tag] == least:
                    counters[tag] = least + 1
            passes.append(least)
            start = end
        yield table, np.array(passes, dtype=np.int64)


def _sum(a: Array, b: Array) -> Array:
    """Their sum, the shorter one filled up with zeros."""
    total = np.zeros(max(len(a), len(b)), dtype=np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def _first(taken: pa.Table, size: int) -> pa.Table:
    """The `size` first rows, pass after pass, as `CHOSEN`."""
    order = np.argsort(taken["pass"].to_numpy(), kind="stable")[:size]
    rows = taken.take(pa.array(order))
    reasons = [f"pass {number + 1}" for number in rows["pass"].to_pylist()]
    nulls = {field.name: pa.nulls(len(order), field.type) for field in CHOSEN}
    columns = {**nulls, **{name: rows[name] for name in ("pool", "sample_id", "score")}}
    columns |= {"rank": pa.array(np.arange(len(order))), "reason": pa.array(reasons, pa.string())}
    return pa.table(columns)


def by_passes(rows: DataFrame, size: int, most: int | None = None) -> DataFrame:
    """Select up to `size` rows, in at most `most` passes: `pool`, `sample_id`, `rank` (from 0),
    `score` (tags), `reason`.

    Reads `pool`, `sample_id`, `tags` (distinct). The sequential algorithm sorts by tag count
    descending (ties: sample id, then pool) and passes over the rows with an empty covered set,
    taking each row that adds a tag, until `size` rows are taken. Within one pass the rows taken
    are those that own the first occurrence, in that order, of some tag: a skipped row adds nothing
    to the covered set. So a pass is one groupBy(tag).min(key). Rows without tags are never taken;
    fewer than `size` rows come back when a pass takes nothing.

    Each pass reads `rows` twice, which is best when they lie in files; their number is about `size`
    over the rows of a pass. The driver and each executor hold the tags, and the keys of the rows
    taken. Needs Spark's checkpoint folder to be set.
    """
    order = (-F.size("tags")).alias("order")
    tagged = rows.where(F.size("tags") > 0).select(*KEY, order, "tags")
    passes: list[DataFrame] = []
    selected = 0
    while selected < size and (most is None or len(passes) < most):
        left = tagged
        if passes:
            taken = reduce(DataFrame.unionByName, passes).select(*KEY)
            left = tagged.join(F.broadcast(taken), KEY, "left_anti")
        found = ranked(_owners(left), size - selected, "order", "sample_id", "pool").select(
            *KEY,
            (F.col("rank") + selected).alias("rank"),
            (-F.col("order")).cast("double").alias("score"),
            F.lit(f"pass {len(passes) + 1}").alias("reason"),
        )
        # Cuts the plan, which would otherwise hold all earlier passes.
        found = found.checkpoint()
        count = found.count()
        if not count:
            break
        passes.append(found)
        selected += count
    if not passes:
        empty = "pool string, sample_id string, rank long, score double, reason string"
        return rows.sparkSession.createDataFrame([], empty)
    return reduce(DataFrame.unionByName, passes)


def _owners(rows: DataFrame) -> DataFrame:
    """The rows (`order`, `sample_id`, `pool`) that are the first of some tag, in this order.

    Spark finds the least of numbers by hashing, of keys with strings by sorting all: so the order
    first, and of the few rows that have it the key.
    """
    uses = rows.select(*KEY, "order", F.explode("tags").alias("tag"))
    least = uses.groupBy("tag").agg(F.min("order").alias("order"))
    among = uses.join(F.broadcast(least), ["tag", "order"])
    key = F.min(F.struct("order", "sample_id", "pool")).alias("key")
    return among.groupBy("tag").agg(key).select("key.*").distinct()
