"""Diversity, complexity and recall of pools (InsTag, sections 3.1 and 4)."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from tagsieve.ontology.association import frequent_items, frequent_pairs, item_baskets


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


def pool_tag_uses(pool_tags: DataFrame) -> DataFrame:
    """One row per pool and tag: `samples` that hold it, their `share` of the pool's tagged samples,
    and `lift`: that share over the one of all pools together."""
    held = pool_tags.select("pool", F.explode("tags").alias("tag"))
    per_pool = pool_tags.groupBy("pool").agg(F.count("*").alias("of_pool"))
    per_tag = held.groupBy("tag").agg(F.count("*").alias("of_tag"))
    everything = pool_tags.agg(F.count("*").alias("of_all"))
    share = F.col("samples") / F.col("of_pool")
    return (
        held.groupBy("pool", "tag")
        .agg(F.count("*").alias("samples"))
        .join(per_tag, "tag")
        .join(F.broadcast(per_pool), "pool")
        .crossJoin(F.broadcast(everything))
        .select(
            "pool",
            "tag",
            "samples",
            share.alias("share"),
            (share * F.col("of_all") / F.col("of_tag")).alias("lift"),
        )
    )


def tag_pairs(contents: DataFrame, min_support: int, max_tags: int) -> DataFrame:
    """Tags that stand together: `tag`, `other_tag` (the less frequent one), `samples` that hold
    both, `lift` over chance; of pairs in at least `min_support` of them.

    Reads `sample_id`, `tags` of distinct contents; of each the `max_tags` most frequent tags.
    """
    baskets = contents.select(F.col("sample_id").alias("query_id"), "tags")
    items = frequent_items(baskets, min_support)
    numbered = item_baskets(baskets, items).select(F.slice("items", 1, max_tags).alias("items"))
    names = items.select("item", "tag", "uses")
    first = F.broadcast(names.toDF("one", "tag", "uses"))
    second = F.broadcast(names.toDF("other", "other_tag", "other_uses"))
    everything = contents.agg(F.count("*").alias("of_all"))
    chance = F.col("uses") * F.col("other_uses") / F.col("of_all")
    return (
        frequent_pairs(numbered, min_support)
        .join(first, "one")
        .join(second, "other")
        .crossJoin(F.broadcast(everything))
        .select(
            "tag",
            "other_tag",
            F.col("support").alias("samples"),
            (F.col("support") / chance).alias("lift"),
        )
    )


def tag_coverage(contents: DataFrame) -> DataFrame:
    """How far the most frequent tags reach: `rank` (1: the most frequent), `tag`, `samples` that
    hold it, `coverage`: the share of contents that hold a tag of this rank or before it.

    Reads `sample_id`, `tags` of distinct contents. The windows run over distinct tags alone.
    """
    baskets = contents.select(F.col("sample_id").alias("query_id"), "tags")
    ranks = frequent_items(baskets, 1)
    first = baskets.select("query_id", F.explode("tags").alias("tag")).join(ranks, "tag")
    newly = (
        first.groupBy("query_id").agg(F.min("item").alias("item")).groupBy("item")
        .agg(F.count("*").alias("newly"))
    )  # fmt: skip
    everything = contents.agg(F.count("*").alias("of_all"))
    reached = F.sum(F.coalesce("newly", F.lit(0))).over(Window.orderBy("item"))
    return (
        ranks.join(newly, "item", "left")
        .crossJoin(F.broadcast(everything))
        .select(
            F.col("item").cast("long").alias("rank"),
            "tag",
            F.col("uses").alias("samples"),
            (reached / F.col("of_all")).alias("coverage"),
        )
    )
