"""Rows that a model could not do: found in `quarantine` by their owner, tried again, closed.

The owner is the fingerprint of what failed (a tagger, an encoder), and `column` the id of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import quarantine_key
from tagsieve.errors import RunError

GONE = "not_in_samples"
"""A quarantined row that no sample has any more."""


def quarantined(
    context: Context, owner: str, column: str, reasons: Sequence[str] = ()
) -> DataFrame:
    """Ids of what lies in quarantine for an owner, for any of `reasons` (none: for all)."""
    rows = _of_owner(context, owner, column).where(F.col("resolved_by").isNull())
    if reasons:
        rows = rows.where(F.col("reason").isin(*reasons))
    return rows.select(column).distinct()


def _of_owner(context: Context, owner: str, column: str) -> DataFrame:
    prefix = quarantine_key(owner, "")
    rows = context.lake.read(context.engines.spark, "quarantine")
    ours = rows.where(F.col("key").startswith(prefix))
    return ours.withColumn(column, F.expr(f"substring(key, {len(prefix) + 1})"))


def close_quarantine(
    context: Context, owner: str, column: str, rows: DataFrame, spare_own: bool = False
) -> None:
    """Mark what lies in quarantine for these ids as resolved by this run; `spare_own`: not what
    this run itself put there."""
    found = quarantined(context, owner, column).join(
        rows.select(column).distinct(), column, "left_semi"
    )
    keys = found.select(F.concat(F.lit(quarantine_key(owner, "")), column).alias("key"))
    keys = context.stored("to-close", keys)
    if not keys.isEmpty():
        context.lake.resolve(keys, context.run.run_id, spare_own)


def try_again(
    context: Context,
    owner: str,
    column: str,
    rows: DataFrame,
    done: Callable[[], DataFrame],
    do: Callable[[DataFrame], int],
    reasons: Sequence[str],
) -> None:
    """Have those of `rows` done that lie in quarantine for an owner, for any of `reasons` (none:
    for all).

    `done` reads what the owner has done by now, `do` has rows done and gives their number. What is
    done now is closed; what fails again lies in quarantine anew, and its older row is closed. Sets
    the run's input, known and rejected. Raises RunError when nothing lies there.
    """
    run = context.run
    waiting = quarantined(context, owner, column, reasons)
    run.input = waiting.count()
    if not run.input:
        known = quarantined(context, owner, column).count()
        raise RunError(
            f"nothing of {owner} lies in quarantine"
            + (f" for {', '.join(reasons)}; {known} do for other reasons" if known else "")
        )
    asked = rows.join(waiting, column, "left_semi")
    # Done by a replay that was killed before it could close the row.
    run.known = asked.join(done(), column, "left_semi").count()
    gone = run.input - asked.count()
    count = do(asked.join(done(), column, "left_anti"))
    if gone:
        run.rejected[GONE] = gone
    if context.limit is not None:
        run.input = run.known + count + gone
    close_tried(context, owner, column, rows.join(done(), column, "left_semi"))


def close_tried(context: Context, owner: str, column: str, done: DataFrame) -> None:
    """Close what lies in quarantine for the rows that are `done`, and what lay there already for
    those that this run has put there anew."""
    mine = F.col("run_id") == context.run.run_id
    again = _of_owner(context, owner, column).where(mine)
    close_quarantine(context, owner, column, done)
    close_quarantine(context, owner, column, again, spare_own=True)
