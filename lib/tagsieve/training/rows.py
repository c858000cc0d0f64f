"""What each task is trained on: frames of `id` (a string, the key of the hold-out), `place` (the
order), and what the row's text is made of."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from tagsieve.engines.context import Context
from tagsieve.errors import UsageError


def selected_rows(context: Context, name: str) -> DataFrame:
    """`turns` and `given` (the input of an alpaca record) of a selection's rows, by rank."""
    rows = context.pinned("selections").where(F.col("selection") == name)
    return _with_turns(context, rows.withColumnRenamed("rank", "place"))


def mixed_rows(context: Context, name: str) -> DataFrame:
    """As `selected_rows`, of a mixture, by position."""
    rows = context.pinned("mixtures").where(F.col("mixture") == name)
    return _with_turns(context, rows.withColumnRenamed("position", "place"))


def _with_turns(context: Context, rows: DataFrame) -> DataFrame:
    given = F.coalesce(F.try_element_at("meta", F.lit("input")), F.lit("")).alias("given")
    samples = context.pinned("samples").select("pool", "sample_id", "turns", given)
    joined = rows.select("pool", "sample_id", "place").join(samples, ["pool", "sample_id"])
    return joined.select(F.col("sample_id").alias("id"), "place", "turns", "given")


def tagger_rows(queries: DataFrame) -> DataFrame:
    """`text` and `tags` of queries, by their ids."""
    key = F.col("query_id")
    return queries.select(key.alias("id"), key.alias("place"), "text", "tags")


def scorer_rows(rows: DataFrame, source: str) -> DataFrame:
    """`prompt` and `completion` of a scorer's training set; the variants of a seed are held out
    together. Raises UsageError where it is none."""
    _need(rows, "train.examples", source, ("prompt", "completion"))
    key = F.col("seed_id" if "seed_id" in rows.columns else "prompt").cast("string")
    rows = rows.select(key.alias("id"), "prompt", F.trim("completion").alias("completion"))
    good = F.coalesce(F.col("completion").rlike("^[1-6]$"), F.lit(False))
    odd = rows.where(~good).first()
    if odd is not None:
        raise UsageError(
            f"train.examples={source}: a completion is {odd['completion']!r}; those of a scorer "
            "are 1 to 6"
        )
    return _hashed(rows, "prompt", "completion")


def preference_rows(rows: DataFrame, source: str) -> DataFrame:
    """`turns` (what comes before the answer), `chosen` and `rejected`; pairs of one prompt are held
    out together.

    Reads `chosen` and `rejected`: texts, with the `prompt`, or lists of messages of which the last
    is the answer. Raises UsageError where they are neither.
    """
    kinds = {field.name: field.dataType for field in rows.schema}
    lists = [isinstance(kinds.get(name), T.ArrayType) for name in ("chosen", "rejected")]
    if all(lists):
        before = F.slice("chosen", 1, F.size("chosen") - 1)
        turns = F.transform(before, lambda turn: F.struct(turn["role"], turn["content"]))
        chosen, rejected = (F.element_at(name, -1)["content"] for name in ("chosen", "rejected"))
    else:
        _need(rows, "train.pairs", source, ("prompt", "chosen", "rejected"))
        turns = F.array(F.struct(F.lit("user"), F.col("prompt")))
        chosen, rejected = F.col("chosen"), F.col("rejected")
    told = rows.select(
        turns.cast("array<struct<role: string, content: string>>").alias("turns"),
        chosen.cast("string").alias("chosen"),
        rejected.cast("string").alias("rejected"),
    )
    lacks = F.col("chosen").isNull() | F.col("rejected").isNull() | (F.size("turns") < 1)
    if any(lists) != all(lists) or not told.where(lacks).isEmpty():
        raise UsageError(
            f"train.pairs={source}: expected prompt, chosen and rejected as texts, or chosen and "
            "rejected as lists of messages (role, content) that end with the answer, in every row"
        )
    told = told.withColumn("id", F.sha2(F.to_json("turns"), 256))
    return _hashed(told, "id", "chosen", "rejected")


def _hashed(rows: DataFrame, *columns: str) -> DataFrame:
    """Rows with a `place` by a hash of what they are."""
    return rows.withColumn("place", F.sha2(F.concat_ws("\n", *columns), 256))


def _need(rows: DataFrame, setting: str, source: str, columns: Sequence[str]) -> None:
    lacking = [name for name in columns if name not in rows.columns]
    if lacking:
        raise UsageError(
            f"{setting}={source}: lacks {', '.join(lacking)}; it has: {', '.join(rows.columns)}"
        )
