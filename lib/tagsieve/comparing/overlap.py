"""How many rows selections share, and what only one of them has."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from tagsieve.comparing.rows import KEY


def memberships(rows: DataFrame) -> DataFrame:
    """One row per (`pool`, `sample_id`): `held`, the sorted selections that hold it."""
    return rows.groupBy(*KEY).agg(F.array_sort(F.collect_set("selection")).alias("held"))


def shared_rows(held: DataFrame) -> DataFrame:
    """Rows that two selections share: `selection`, `other`, `shared`, both orders and each with
    itself; pairs that share none are left out. Reads `held`."""
    # First by what they are held by, of which there are fewer than rows.
    patterns = held.groupBy("held").agg(F.count("*").alias("count"))
    pairs = patterns.select("held", F.explode("held").alias("selection"), "count")
    pairs = pairs.select("selection", F.explode("held").alias("other"), "count")
    return pairs.groupBy("selection", "other").agg(F.sum("count").cast("long").alias("shared"))


def overlap(names: Sequence[str], shared: dict[tuple[str, str], int]) -> list[dict[str, object]]:
    """Each ordered pair: `selection`, `other`, `shared` (rows) and `jaccard`: shared rows over
    those that at least one of the two holds."""
    found: list[dict[str, object]] = []
    for name in names:
        for other in names:
            both = shared.get((name, other), 0)
            either = shared[name, name] + shared[other, other] - both
            pair = {"selection": name, "other": other, "shared": both}
            found.append(pair | {"jaccard": both / either})
    return found


def only_rows(rows: DataFrame, held: DataFrame) -> DataFrame:
    """The rows that one selection alone holds, with the columns of `rows`."""
    alone = held.where(F.size("held") == 1).select(*KEY)
    return rows.join(alone, list(KEY), "left_semi")


def first_of_each(rows: DataFrame, count: int) -> DataFrame:
    """The first `count` rows of each selection by `rank`."""
    order = Window.partitionBy("selection").orderBy("rank", "sample_id", "pool")
    placed = rows.withColumn("place", F.row_number().over(order))
    return placed.where(F.col("place") <= count).drop("place")


def only_tags(tagged: DataFrame, count: int) -> DataFrame:
    """Of each selection the tags that no other one has: `selection`, `total` of them and, as
    `tags`, the `count` most frequent (`place`, `tag`, `samples`). Reads `selection`, `tags`."""
    uses = (
        tagged.select("selection", F.explode("tags").alias("tag"))
        .groupBy("tag")
        .agg(F.collect_set("selection").alias("held"), F.count("*").alias("samples"))
        .where(F.size("held") == 1)
        .select(F.col("held")[0].alias("selection"), "tag", "samples")
    )
    order = Window.partitionBy("selection").orderBy(F.desc("samples"), "tag")
    first = F.when(F.col("place") <= count, F.struct("place", "tag", "samples"))
    return (
        uses.withColumn("place", F.row_number().over(order))
        .groupBy("selection")
        .agg(F.count("*").alias("total"), F.array_sort(F.collect_list(first)).alias("tags"))
    )
