"""Diversity, complexity and recall of pools (InsTag, sections 3.1 and 4)."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def pool_stats(pool_tags: DataFrame) -> DataFrame:
    """One row per pool: `samples`, `queries`, `untagged_queries`, `tags`, `diversity`,
    `complexity`.

    Diversity = unique tags of the pool / unique tags of all pools. Complexity = mean tags over
    the pool's (conversation, turn) pairs; a query without tags counts as 0. Reads `pool`,
    `sample_id`, `tags`, `turn_tags` of tagged samples.
    """
    sizes = pool_tags.select(
        "pool",
        F.size("turn_tags").alias("turns"),
        F.aggregate("turn_tags", F.lit(0), lambda total, tags: total + F.size(tags)).alias("tags"),
        F.size(F.filter("turn_tags", lambda tags: F.size(tags) == 0)).alias("untagged"),
    )
    per_pool = sizes.groupBy("pool").agg(
        F.count("*").alias("samples"),
        F.sum("turns").cast("long").alias("queries"),
        F.sum("untagged").cast("long").alias("untagged_queries"),
        (F.sum("tags") / F.sum("turns")).alias("complexity"),
    )
    unique = unique_tags(pool_tags)
    all_tags = unique.agg(F.countDistinct("tag").alias("all_tags"))
    per_tag = unique.groupBy("pool").agg(F.count("*").alias("tags"))
    return (
        per_pool.join(per_tag, "pool", "left")
        .crossJoin(F.broadcast(all_tags))
        .select(
            "pool",
            "samples",
            "queries",
            "untagged_queries",
            F.coalesce("tags", F.lit(0)).alias("tags"),
            F.coalesce(F.try_divide("tags", "all_tags"), F.lit(0.0)).alias("diversity"),
            "complexity",
        )
    )


def pool_recall(pool_tags: DataFrame) -> DataFrame:
    """Recall of each ordered pair of pools: `pool`, `other_pool`, `recall`.

    Recall(row, col) = |tags of row ∩ tags of col| / |tags of row|; null for a pool without tags.
    """
    unique = unique_tags(pool_tags)
    sizes = unique.groupBy("pool").agg(F.count("*").alias("tags"))
    pools = pool_tags.select("pool").distinct()
    shared = (
        unique.alias("a")
        .join(unique.alias("b"), "tag")
        .groupBy(F.col("a.pool").alias("pool"), F.col("b.pool").alias("other_pool"))
        .agg(F.count("*").alias("shared"))
    )
    pairs = pools.crossJoin(pools.withColumnRenamed("pool", "other_pool"))
    return (
        pairs.join(shared, ["pool", "other_pool"], "left")
        .join(sizes, "pool", "left")
        .select(
            "pool",
            "other_pool",
            F.try_divide(F.coalesce("shared", F.lit(0)), F.col("tags")).alias("recall"),
        )
    )


def unique_tags(pool_tags: DataFrame) -> DataFrame:
    """The distinct (`pool`, `tag`) pairs."""
    return pool_tags.select("pool", F.explode("tags").alias("tag")).distinct()
