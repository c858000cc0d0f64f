"""Measuring a tagger by its teacher: which tags of the one the other has, by query and over all.

Tags are compared in lower case, with white space as one space, each once per query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.vectors import Array, similarities
from tagsieve.records import normalize_text

WAYS = ("exact", "fuzzy")

FOUND = pa.schema(
    [("query_id", pa.string()), ("fuzzy_right", pa.int64()), ("fuzzy_found", pa.int64())]
)
"""Of a query: how many tags of the tagger are near one of the teacher's, and the other way."""


@cache
def folded() -> Callable[..., Column]:
    """A Spark function of a list of tags: the distinct ones as they are compared, sorted; none of
    null."""

    @F.arrow_udf("array<string>")  # type: ignore[attr-defined, untyped-decorator]
    def found(lists: pa.Array) -> pa.Array:
        return pa.array([_folded(tags or []) for tags in lists.to_pylist()], pa.list_(pa.string()))

    return found  # type: ignore[no-any-return, unused-ignore]


def _folded(tags: list[str]) -> list[str]:
    return sorted({normalize_text(tag).casefold() for tag in tags} - {""})


def near_tags(
    rows: Iterator[pa.Table], tags: pa.Array, vectors: Array, similarity: float
) -> Iterator[pa.Table]:
    """`FOUND` of chunks of rows that have `query_id`, `predicted` and `gold`.

    Every pair of a query's tags is compared in float64 (METHODS.md, section 7), those of one chunk
    at a time. `vectors`: of `tags`, which are all that there are.
    """
    for chunk in rows:
        predicted, gold = (chunk[name].combine_chunks() for name in ("predicted", "gold"))
        i, j = _pairs(predicted, gold)
        places = [
            pc.index_in(side.flatten(), tags).to_numpy(zero_copy_only=False)
            for side in (predicted, gold)
        ]
        near = similarities(vectors, vectors, places[0][i], places[1][j]) > similarity
        counts = [_counts(predicted, i[near]), _counts(gold, j[near])]
        yield pa.table([chunk["query_id"], *map(pa.array, counts)], schema=FOUND)


def _pairs(left: pa.ListArray, right: pa.ListArray) -> tuple[Array, Array]:
    """All pairs of items of the same row, by their places among all items of each side."""
    sizes, others = (pc.list_value_length(side).to_numpy() for side in (left, right))
    rows = np.repeat(np.arange(len(sizes)), sizes * others)
    starts, firsts = (np.cumsum(each) - each for each in (sizes, others))
    before = np.cumsum(sizes * others) - sizes * others
    within = np.arange(len(rows)) - before[rows]
    return starts[rows] + within // others[rows], firsts[rows] + within % others[rows]


def _counts(lists: pa.ListArray, items: Array) -> Array:
    """How many different ones of `items` are of each row."""
    rows = np.repeat(np.arange(len(lists)), pc.list_value_length(lists).to_numpy())
    counts: Array = np.bincount(rows[np.unique(items)], minlength=len(lists))
    return counts


def by_query(compared: DataFrame, near: DataFrame) -> DataFrame:
    """`compared` (`query_id`, `predicted`, `gold`, `failed`) with the counts `given`, `wanted` and,
    of each way, `WAY_right`, `WAY_found` and the measures `WAY_precision`, `WAY_recall`, `WAY_f1`
    of the query. Reads also `FOUND`.

    Two empty sets are equal: all measures are 1. One against none: 0.
    """
    exact = F.size(F.array_intersect("predicted", "gold"))
    rows = compared.join(near, "query_id").withColumns(
        {
            "given": F.size("predicted"),
            "wanted": F.size("gold"),
            "exact_right": exact,
            "exact_found": exact,
        }
    )
    empty = (F.col("given") == 0) & (F.col("wanted") == 0)
    for way in WAYS:
        precision = F.try_divide(f"{way}_right", "given")
        recall = F.try_divide(f"{way}_found", "wanted")
        measures = {"precision": precision, "recall": recall, "f1": _f1(precision, recall)}
        rows = rows.withColumns(
            {
                f"{way}_{name}": F.when(empty, 1.0).otherwise(F.coalesce(measure, F.lit(0.0)))
                for name, measure in measures.items()
            }
        )
    return rows


def measures_of(rows: DataFrame) -> dict[str, Any]:
    """The figures over all rows of `by_query`: `queries`, `in_quarantine` (those that failed),
    `tags_per_query`, `teacher_tags_per_query`, and of each way micro `precision`, `recall` and
    `f1`, and the means over queries, `macro_...`.

    Precision is None where the tagger gives no tag at all, recall where the teacher gives none.
    """
    columns = {
        "queries": F.count("*"),
        "in_quarantine": F.count_if("failed"),
        "tags_per_query": F.mean("given"),
        "teacher_tags_per_query": F.mean("wanted"),
    }
    for way in WAYS:
        precision = F.try_divide(F.sum(f"{way}_right"), F.sum("given"))
        recall = F.try_divide(F.sum(f"{way}_found"), F.sum("wanted"))
        none = F.sum(F.col("given") + F.col("wanted")) == 0
        f1 = F.when(none, 1.0).otherwise(_f1(precision, recall))
        columns |= {f"{way} precision": precision, f"{way} recall": recall, f"{way} f1": f1}
        columns |= {
            f"{way} macro_{name}": F.mean(f"{way}_{name}") for name in ("precision", "recall", "f1")
        }
    found = rows.agg(*(column.alias(name) for name, column in columns.items())).first()
    assert found is not None
    told: dict[str, Any] = {way: {} for way in WAYS}
    for name, value in found.asDict().items():
        way, _, measure = name.rpartition(" ")
        (told[way] if way else told)[measure] = value
    return told


def _f1(precision: Column, recall: Column) -> Column:
    """Their harmonic mean; 0 where one is 0 or there is none."""
    return F.coalesce(F.try_divide(2 * precision * recall, precision + recall), F.lit(0.0))
