"""InsTag's Algorithm 3: subsets of a given tag coverage with a given mean number of tags."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from tagsieve.selection.config import TagCoverageConfig
from tagsieve.selection.outcome import cumulated, ranked

KEY = ["order", "sample_id", "pool"]


def tag_coverage(config: TagCoverageConfig, rows: DataFrame, tags: int, size: int) -> DataFrame:
    """Up to `size` rows of `rows` (`pool`, `sample_id`, `tags`): `pool`, `sample_id`, `rank`,
    `score` (tags), `reason`. `tags`: how many there are in all, of which a share is to be covered.

    In the order of Algorithm 1 each row that adds a tag is taken, until more than the share is
    covered. The others add none: of them such are taken, by their number of tags, that the mean
    stays as near to the target as each next row can bring it (ties: fewer tags; rows of one
    number by sample id, then pool). Those numbers are chosen on the driver, from a count of rows
    for each. Needs Spark's checkpoint folder to be set.
    """
    order = (-F.size("tags")).alias("order")
    left = rows.where(F.size("tags") > 0).select(order, "sample_id", "pool", "tags")
    each = left.select(F.struct(*KEY).alias("key"), F.explode("tags").alias("tag"))
    owned = each.groupBy("tag").agg(F.min("key").alias("key")).checkpoint()
    owners = owned.groupBy("key").agg(F.count("*").alias("new"))
    owners = cumulated(owners, F.col("new"), "before", "key")
    adding = ranked(owners.where(F.col("before") / tags <= config.coverage), size, "key")
    adding = adding.select("key", "new", "rank").checkpoint()
    totals = adding.agg(F.count("*"), F.coalesce(-F.sum("key.order"), F.lit(0))).first()
    assert totals is not None
    taken, total = map(int, totals)
    open_tags = owned.join(adding, "key", "left_anti").select("tag")
    adds = each.join(open_tags, "tag").select("key").unionByName(adding.select("key"))
    rest = left.select(F.struct(*KEY).alias("key")).join(adds.distinct(), "key", "left_anti")
    rest = rest.checkpoint()
    counts = rest.groupBy((-F.col("key.order")).alias("count")).agg(F.count("*").alias("rows"))
    there = {row["count"]: row["rows"] for row in counts.collect()}
    quotas = _quotas(there, taken, total, size, config.mean_tags)
    reason = F.concat(F.lit("adds "), "new", F.lit(" tag(s)"))
    found = adding.select("key", "rank", reason.alias("reason"))
    if quotas:
        found = found.unionByName(_filling(rest, quotas, taken))
    score = (-F.col("key.order")).cast("double").alias("score")
    return found.select("key.pool", "key.sample_id", "rank", score, "reason")


def _quotas(
    there: Mapping[int, int], taken: int, total: int, size: int, mean: float
) -> dict[int, int]:
    """How many rows with each number of tags bring `taken` rows with `total` tags up to `size`."""
    left = dict(there)
    quotas: dict[int, int] = {}
    while taken < size and left:
        lacking = mean * (taken + 1) - total
        count = min(left, key=lambda count: (abs(count - lacking), count))
        quotas[count] = quotas.get(count, 0) + 1
        left[count] -= 1
        if not left[count]:
            del left[count]
        taken, total = taken + 1, total + count
    return quotas


def _filling(rest: DataFrame, quotas: Mapping[int, int], taken: int) -> DataFrame:
    """The first rows with each number of tags, `rank` from `taken` on."""
    pairs = [F.lit(number) for pair in quotas.items() for number in pair]
    by_count = Window.partitionBy("key.order").orderBy("key")
    filling = rest.withColumn("turn", F.row_number().over(by_count))
    quota = F.create_map(*pairs)[-F.col("key.order")]
    # The largest quota, as a number, lets each task hand on no more rows than so many of a number
    # of tags. With tokens and no size that may be all of them, sorted in one task.
    filling = filling.where(F.col("turn") <= max(quotas.values())).where(F.col("turn") <= quota)
    found = ranked(filling, sum(quotas.values()), (F.col("turn") - 0.5) / quota, "key")
    rank = (F.col("rank") + taken).alias("rank")
    return found.select("key", rank, F.lit("adds no tag").alias("reason"))
