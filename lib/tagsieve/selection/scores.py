"""One score for each conversation, from the scores of its turns (DEITA, section 3.3)."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.lake import WHOLE
from tagsieve.selection.config import OverTurns
from tagsieve.selection.expressions import names_in, parse
from tagsieve.selection.outcome import cumulated


def combined(
    scores: DataFrame,
    turns: DataFrame,
    scorers: Mapping[str, str],
    expression: str,
    over_turns: OverTurns,
) -> DataFrame:
    """`sample_id`, `score`: by an expression over scorers' names, and over a conversation's turns.

    Reads `sample_id`, `turn`, `scorer`, `value`, and in `turns` how many human turns (`turns`) a
    `sample_id` has. `scorers`: names to values of `scorer`. A score of a whole conversation stands
    beside each of its turns. A conversation that lacks a score of any turn, or whose score is no
    finite number, is not in the result. Needs Spark's checkpoint folder to be set.
    """
    names = sorted(names_in(expression))
    rows = _side_by_side(scores, {name: scorers[name] for name in names})
    complete = reduce(Column.__and__, (F.col(name).isNotNull() for name in names))
    rows = rows.where(complete)
    if over_turns == "product_of_sums":
        whole = _over_turns(rows, {name: ("sum", F.col(name)) for name in names})
        scored = _evaluated(_all_turns(whole, turns), expression)
    else:
        scored = _evaluated(rows, expression)
        how = {"score": (over_turns, F.col("score"))}
        scored = _all_turns(_over_turns(scored, how), turns)
    finite = ~F.isnan("score") & (F.abs("score") != float("inf"))
    return scored.where(F.col("score").isNotNull() & finite).select("sample_id", "score")


def _side_by_side(scores: DataFrame, scorers: Mapping[str, str]) -> DataFrame:
    """`sample_id`, `turn` and a column for each name: a row for each turn, or, of a conversation
    with none but scores as a whole, one of turn -1."""
    values = {name: F.max(F.when(F.col("scorer") == key, F.col("value"))).alias(name)
              for name, key in scorers.items()}  # fmt: skip
    wide = scores.where(F.col("scorer").isin(*scorers.values()))
    wide = wide.groupBy("sample_id", "turn").agg(*values.values())
    each = wide.where(F.col("turn") != WHOLE)
    whole = wide.where(F.col("turn") == WHOLE).select(
        "sample_id", *(F.col(name).alias(f"whole_{name}") for name in scorers)
    )
    both = each.join(whole, "sample_id", "full_outer")
    return both.select(
        "sample_id",
        F.coalesce("turn", F.lit(WHOLE)).alias("turn"),
        *(F.coalesce(name, f"whole_{name}").alias(name) for name in scorers),
    )


def _over_turns(rows: DataFrame, how: Mapping[str, tuple[str, Column]]) -> DataFrame:
    """`sample_id`, `counted` (rows) and a value for each key of `how`.

    In the order of turns, since the last digits of a sum depend on its order.
    """
    values = F.struct("turn", *(column.alias(name) for name, (_, column) in how.items()))
    grouped = rows.groupBy("sample_id").agg(
        F.array_sort(F.collect_list(values)).alias("rows"), F.max("turn").alias("last")
    )

    def reduced(name: str, kind: str) -> Column:
        items = F.transform("rows", lambda row: row[name])
        if kind == "max":
            return F.array_max(items)
        if kind == "first":
            return items[0]
        total = F.aggregate(items, F.lit(0.0), lambda total, item: total + item)
        return total / F.size("rows") if kind == "mean" else total

    return grouped.select(
        "sample_id",
        F.when(F.col("last") != WHOLE, F.size("rows")).alias("counted"),
        *(reduced(name, kind).alias(name) for name, (kind, _) in how.items()),
    )


def _all_turns(rows: DataFrame, turns: DataFrame) -> DataFrame:
    """Those of which every turn was counted, or that were scored as a whole."""
    joined = rows.join(turns, "sample_id")
    return joined.where(F.col("counted").isNull() | (F.col("counted") == F.col("turns")))


def _evaluated(rows: DataFrame, expression: str) -> DataFrame:
    """Rows with the expression's value as `score`, null where it has none."""
    rows, value = _column(rows, parse(expression), itertools.count())
    return rows.withColumn("score", value)


def _column(rows: DataFrame, node: ast.expr, parts: Iterator[int]) -> tuple[DataFrame, Column]:
    """The column of a node, and rows that have the columns that it reads."""
    match node:
        case ast.Name(name):
            return rows, F.col(name)
        case ast.Constant(value):
            return rows, F.lit(float(str(value)))
        case ast.UnaryOp(operator, operand):
            rows, inner = _column(rows, operand, parts)
            return rows, -inner if isinstance(operator, ast.USub) else inner
        case ast.BinOp(left, operator, right):
            rows, a = _column(rows, left, parts)
            rows, b = _column(rows, right, parts)
            return rows, _operation(operator, a, b)
        case ast.Call(ast.Name(name), arguments):
            columns = []
            for argument in arguments:
                rows, column = _column(rows, argument, parts)
                columns.append(column)
            return _call(rows, name, columns, f"part_{next(parts)}")
    raise AssertionError(ast.dump(node))


def _operation(operator: ast.operator, a: Column, b: Column) -> Column:
    match operator:
        case ast.Add():
            return a + b
        case ast.Sub():
            return a - b
        case ast.Mult():
            return a * b
        case ast.Div():
            return F.try_divide(a, b)
        case _:
            return F.pow(a, b)


def _call(rows: DataFrame, name: str, columns: list[Column], part: str) -> tuple[DataFrame, Column]:
    match name:
        case "min":
            return rows, F.least(*columns)
        case "max":
            return rows, F.greatest(*columns)
        case "zscore":
            rows = rows.withColumn(part, columns[0])
            mean, deviation = _moments(rows, part)
            return rows, (F.col(part) - mean) / (deviation or 1.0)
        case "rank":
            return _ranked(rows.withColumn(part, columns[0]), part)
        case _:
            return rows, getattr(F, name)(columns[0])


def _moments(rows: DataFrame, name: str) -> tuple[float, float]:
    """Mean and standard deviation, to ten digits: further ones depend on the partitions."""
    found = rows.agg(F.avg(name), F.stddev_pop(name)).first()
    assert found is not None
    mean, deviation = (float(f"{value or 0.0:.10g}") for value in found)
    return mean, deviation


def _ranked(rows: DataFrame, name: str) -> tuple[DataFrame, Column]:
    """Rows with the share of rows whose value is lower."""
    values = rows.groupBy(name).agg(F.count("*").alias("equal"))
    below = cumulated(values, F.col("equal"), "below", name)
    share = F.col("below") / F.lit(rows.count())
    shares = below.select(name, share.alias(f"{name}_rank"))
    return rows.join(shares, name), F.col(f"{name}_rank")
