"""A share of the rows from each stratum."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from tagsieve.selection.config import StratifiedConfig
from tagsieve.selection.outcome import drawn, ranked

NONE = "none"
"""The stratum of rows that have no tag, language or such value."""


def stratified(config: StratifiedConfig, rows: DataFrame, size: int) -> DataFrame:
    """`size` rows from the strata of `rows` (`pool`, `sample_id`, `stratum`, and `score` where the
    config names one): `pool`, `sample_id`, `rank`, `score`, `reason`."""
    weight = {
        "equal": F.lit(1.0),
        "proportional": F.col("count").cast("double"),
        "sqrt": F.sqrt("count"),
        "temperature": F.pow("count", F.lit(1 / config.temperature)),
    }[config.allocation]
    strata = rows.groupBy("stratum").agg(F.count("*").alias("count"))
    least = F.coalesce(_of_stratum(config.quotas), _of_stratum(config.at_least), F.lit(0))
    most = F.coalesce(_of_stratum(config.quotas), _of_stratum(config.at_most))
    strata = strata.withColumns({"weight": weight, "least": least, "most": most}).drop("count")
    order = [F.desc("score")] if config.score else [drawn(config.seed)]
    score = F.col("score") if config.score else F.lit(None).cast("double")
    return shared_out(rows, strata, order, size).select(
        "pool",
        "sample_id",
        "rank",
        score.alias("score"),
        F.concat(F.lit(f"{config.by} "), "stratum").alias("reason"),
    )


def shared_out(rows: DataFrame, strata: DataFrame, order: list[Column], size: int) -> DataFrame:
    """The first `size` rows by Webster's divisor method, with `rank`.

    `strata`: for each `stratum` a `weight`, how many come before all others (`least`), and at most
    (`most`, null for no limit). The i-th row of a stratum, in `order` (ties: sample id, pool), has
    the place (i - 1/2) / weight. So every number of first rows is shared out by the weights as well
    as whole rows can be, what a stratum lacks is spread over the others, and a smaller selection
    is the beginning of a larger one.
    """
    turn = F.row_number().over(Window.partitionBy("stratum").orderBy(*order, "sample_id", "pool"))
    # None gives more than all: each task then hands on no more than these of a stratum. With tokens
    # and no size that may be all of it, sorted in one task.
    rows = rows.withColumn("turn", turn).where(F.col("turn") <= size)
    rows = rows.join(F.broadcast(strata), "stratum")
    rows = rows.where(F.col("most").isNull() | (F.col("turn") <= F.col("most")))
    first = F.col("turn") <= F.col("least")
    place = (F.col("turn") - 0.5) / F.col("weight")
    rows = rows.withColumns({"place": place, "later": ~first})
    return ranked(rows, size, "later", "place", "stratum", "sample_id", "pool")


def equally_shared(rows: DataFrame, order: list[Column], size: int) -> DataFrame:
    """As `shared_out`, with as many rows from each `stratum`."""
    equal = {"weight": F.lit(1.0), "least": F.lit(0), "most": F.lit(None).cast("long")}
    return shared_out(rows, rows.select("stratum").distinct().withColumns(equal), order, size)


def _of_stratum(numbers: int | Mapping[str, int] | None) -> Column:
    """The number of a row's stratum; null where there is none."""
    if not isinstance(numbers, Mapping):
        return F.lit(numbers).cast("long")
    if not numbers:
        return F.lit(None).cast("long")
    pairs = [F.lit(part) for pair in numbers.items() for part in pair]
    return F.create_map(*pairs)[F.col("stratum")].cast("long")


def by_rarest_tag(rows: DataFrame) -> DataFrame:
    """Rows with the rarest of their `tags` (ties: by name) as `stratum`."""
    tags = rows.select("pool", "sample_id", F.explode("tags").alias("tag"))
    counts = tags.groupBy("tag").agg(F.count("*").alias("count"))
    rarest = (
        tags.join(counts, "tag")
        .groupBy("pool", "sample_id")
        .agg(F.min(F.struct("count", "tag"))["tag"].alias("stratum"))
    )
    rows = rows.join(rarest, ["pool", "sample_id"], "left")
    return rows.withColumn("stratum", F.coalesce("stratum", F.lit(NONE)))
