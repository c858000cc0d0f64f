"""Which rows of a group are judged together: pairs that stay as they are when the group grows."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

MEMBER = ["group_id", "sample_id"]


def new_pairs(members: DataFrame, known: DataFrame, rounds: int, seed: int) -> DataFrame:
    """Pairs (`group_id`, `round`, `a`, `b`, ids in order) of rows that have none in a round yet.

    Reads `group_id`, `sample_id` of `members`, each once, and the columns of a pair of `known`. In
    each of the `rounds` the rows of a group have an order of their own, by a hash of `seed`; those
    without a pair are paired two by two in this order, and an odd one with the row next to it in
    the order of all (TACOS: every row of a group of two or more is in at least one pair). The only
    row of a group has none. So a group that grows keeps its pairs, and its new rows get new ones.
    """
    numbers = F.explode(F.sequence(F.lit(0), F.lit(rounds - 1)))
    rows = members.select(*MEMBER, numbers.alias("round"))
    paired = known.select("group_id", "round", F.explode(F.array("a", "b")).alias("sample_id"))
    paired = paired.distinct().withColumn("paired", F.lit(True))
    drawn = F.xxhash64(F.lit(seed).cast("long"), F.col("round").cast("long"), "sample_id")
    order = Window.partitionBy("group_id", "round").orderBy(drawn, "sample_id")
    beside = F.coalesce(F.lag("sample_id").over(order), F.lead("sample_id").over(order))
    free = rows.withColumn("beside", beside).join(paired, [*MEMBER, "round"], "left")
    free = free.where(F.col("paired").isNull())
    placed = free.withColumns(
        {"place": F.row_number().over(order), "next": F.lead("sample_id").over(order)}
    )
    mate = F.coalesce("next", "beside")
    return placed.where((F.col("place") % 2 == 1) & mate.isNotNull()).select(
        "group_id",
        "round",
        F.least("sample_id", mate).alias("a"),
        F.greatest("sample_id", mate).alias("b"),
    )
