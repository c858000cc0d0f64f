"""Association rules between tags (InsTag, section 3.2): mined by Spark, applied by joins.

Tags stand as items: their places in one fixed order, most frequent first, then by code points.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from tagsieve.console import Console
from tagsieve.errors import RunError
from tagsieve.ontology.config import AssociationConfig
from tagsieve.ontology.merging import dropped, root


def frequent_items(baskets: DataFrame, min_support: int) -> DataFrame:
    """`tag`, `uses`, `item` of the tags that stand in at least `min_support` baskets.

    Reads `tags` (each tag once). The items are numbered by a window over the frequent tags alone:
    few, whatever the number of baskets.
    """
    uses = (
        baskets.select(F.explode("tags").alias("tag"))
        .groupBy("tag")
        .agg(F.count("*").alias("uses"))
    )
    order = Window.orderBy(F.desc("uses"), "tag")
    frequent = uses.where(F.col("uses") >= min_support)
    return frequent.withColumn("item", F.row_number().over(order))


def item_baskets(baskets: DataFrame, items: DataFrame) -> DataFrame:
    """`query_id` and `items` (ascending) of the baskets that have a frequent tag."""
    return (
        baskets.select("query_id", F.explode("tags").alias("tag"))
        .join(F.broadcast(items.select("tag", "item")), "tag")
        .groupBy("query_id")
        .agg(F.array_sort(F.collect_list("item")).alias("items"))
    )


def mine(
    baskets: DataFrame, items: DataFrame, queries: int, config: AssociationConfig, console: Console
) -> DataFrame:
    """Rules with one consequent: `antecedent` (items, ascending), `consequent`, `support` (a
    count), `confidence`, `lift`.

    Reads `items` of baskets (cached by the caller) and `uses`, `item` of the frequent tags;
    `queries` is what lift is measured against. Raises RunError when the frequent itemsets could
    be more than `max_itemsets`.
    """
    if config.method == "pairs":
        rules = _pair_rules(baskets, config)
    else:
        _check_itemsets(baskets, config, console)
        rules = _fpgrowth_rules(baskets, config)
    uses = items.select(F.col("item").alias("consequent"), F.col("uses").alias("consequent_uses"))
    lift = F.col("confidence") * queries / F.col("consequent_uses")
    return (
        rules.join(F.broadcast(uses), "consequent")
        .withColumn("lift", lift)
        .select("antecedent", "consequent", "support", "confidence", "lift")
    )


def _fpgrowth_rules(baskets: DataFrame, config: AssociationConfig) -> DataFrame:
    from pyspark.ml.fpm import FPGrowth

    count = baskets.count()
    # MLlib takes a share and rounds share * count up: half a basket less keeps the exact minimum.
    share = (config.min_support - 0.5) / max(count, 1)
    growth = FPGrowth(minSupport=min(share, 1.0), minConfidence=config.min_confidence)
    found = growth.setItemsCol("items").fit(baskets).associationRules
    return found.select(
        F.array_sort("antecedent").alias("antecedent"),
        F.col("consequent")[0].alias("consequent"),
        F.round(F.col("support") * count).cast("long").alias("support"),
        "confidence",
    )


def _pair_rules(baskets: DataFrame, config: AssociationConfig) -> DataFrame:
    """The same rules with one antecedent, by counting pairs: no itemset is longer than two."""
    uses = baskets.select(F.explode("items").alias("item")).groupBy("item").count()
    pairs = frequent_pairs(baskets, config.min_support)
    both = pairs.select("one", "other", "support").unionByName(
        pairs.select(F.col("other").alias("one"), F.col("one").alias("other"), "support")
    )
    confidence = F.col("support") / F.col("count")
    return (
        both.join(F.broadcast(uses.withColumnRenamed("item", "one")), "one")
        .withColumn("confidence", confidence)
        .where(F.col("confidence") >= config.min_confidence)
        .select(
            F.array("one").alias("antecedent"),
            F.col("other").alias("consequent"),
            "support",
            "confidence",
        )
    )


def frequent_pairs(baskets: DataFrame, min_support: int) -> DataFrame:
    """`one` < `other` and `support` of the pairs of items in at least `min_support` baskets."""
    # Both items in one number: half the bytes of a shuffle, and one column to hash.
    coded = F.transform(
        "items",
        lambda other: F.transform(
            F.filter("items", lambda one: one < other),
            lambda one: F.shiftleft(one.cast("long"), 32) + other,
        ),
    )
    return (
        baskets.where(F.size("items") > 1)
        .select(F.explode(F.flatten(coded)).alias("pair"))
        .groupBy("pair")
        .agg(F.count("*").alias("support"))
        .where(F.col("support") >= min_support)
        .select(
            F.shiftright("pair", 32).cast("int").alias("one"),
            F.col("pair").bitwiseAND(F.lit(2**32 - 1)).cast("int").alias("other"),
            "support",
        )
    )


def _check_itemsets(baskets: DataFrame, config: AssociationConfig, console: Console) -> None:
    """Refuse baskets of which FP-Growth would make more itemsets than memory holds.

    Every frequent itemset lies in at least `min_support` baskets, so there are at most
    sum(2^size) / min_support of them. Where that is too many, a basket counts only sets in which
    all pairs are frequent ones (its cliques): at most 2^k for each item, k its frequent partners
    before it.
    """
    most = config.max_itemsets
    whole = _total(baskets.select(F.pow(F.lit(2.0), F.size("items")).alias("sets")))
    if whole / config.min_support <= most:
        return
    console.line("normalize: large baskets; counting the itemsets that they could make")
    pairs = frequent_pairs(baskets, config.min_support).select("one", "other")
    partners = (
        baskets.select("query_id", F.explode("items").alias("other"), "items")
        .select(
            "query_id",
            "other",
            F.explode(F.filter("items", lambda i: i < F.col("other"))).alias("one"),
        )
        .join(F.broadcast(pairs), ["one", "other"])
        .groupBy("query_id", "other")
        .count()
    )
    sets = partners.select(F.pow(F.lit(2.0), F.col("count")).alias("sets"))
    bound = _total(sets) / config.min_support
    if bound > most:
        raise RunError(
            f"normalize: FP-Growth could find up to {bound:.2g} frequent itemsets, more than "
            f"association.max_itemsets={most:,}: many queries share long lists of tags. Raise "
            f"association.min_support={config.min_support}, lower association.max_basket="
            f"{config.max_basket}, or set association.method: pairs"
        )


def _total(sets: DataFrame) -> float:
    row = sets.agg(F.sum("sets").alias("total")).first()
    return float(row["total"] or 0.0) if row else 0.0


def dropped_items(baskets: DataFrame, rules: DataFrame) -> DataFrame:
    """`query_id` and `dropped` (items) of the queries in which rules drop something.

    Reads `query_id`, `items` of baskets; `antecedent`, `consequent` of rules. What a query has of
    the rules' items is its pattern; rules are joined to distinct patterns, by the rarest item of
    the antecedent, and resolved once for each pattern (an Arrow UDF: cycles need a walk).
    """
    ruled = rules.select(
        F.explode(F.array_append("antecedent", F.col("consequent"))).alias("item")
    ).distinct()
    patterns = (
        baskets.select("query_id", F.explode("items").alias("item"))
        .join(F.broadcast(ruled), "item")
        .groupBy("query_id")
        .agg(F.array_sort(F.collect_list("item")).alias("pattern"))
        .where(F.size("pattern") > 1)
    )
    distinct = patterns.select("pattern").distinct()
    keyed = rules.select("antecedent", "consequent", F.array_max("antecedent").alias("key"))
    holds = F.array_contains("pattern", F.col("consequent")) & (
        F.size(F.array_except("antecedent", "pattern")) == 0
    )
    resolved = (
        distinct.select("pattern", F.explode("pattern").alias("key"))
        .join(keyed, "key")
        .where(holds)
        .groupBy("pattern")
        .agg(F.collect_list(F.struct("antecedent", "consequent")).alias("rules"))
        .mapInArrow(_resolve, "pattern array<int>, dropped array<int>")
    )
    return patterns.join(resolved, "pattern").select("query_id", "dropped")


def _resolve(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    kind = pa.list_(pa.int32())
    for batch in batches:
        found = [
            dropped(
                row["pattern"], [(tuple(r["antecedent"]), r["consequent"]) for r in row["rules"]]
            )
            for row in batch.to_pylist()
        ]
        yield pa.RecordBatch.from_arrays(
            [batch["pattern"].cast(kind), pa.array(found, kind)], ["pattern", "dropped"]
        )


def named_rules(rules: DataFrame, items: DataFrame) -> DataFrame:
    """`rules` with tags for items, antecedents in code-point order."""
    return _renamed_rules(rules, items.select("item", "tag").toDF("old", "new"))


def item_rules(rules: DataFrame, items: DataFrame) -> DataFrame:
    """`rules` with items for tags, antecedents ascending: of `named_rules`."""
    return _renamed_rules(rules, items.select("tag", "item").toDF("old", "new"))


def _renamed_rules(rules: DataFrame, names: DataFrame) -> DataFrame:
    """`rules` with `new` for each `old` of `names` in antecedents, which are sorted, and
    consequents."""
    names = F.broadcast(names)
    flat = rules.withColumn("rule", F.struct("antecedent", "consequent"))
    antecedents = (
        flat.select("rule", F.explode("antecedent").alias("old"))
        .join(names, "old")
        .groupBy("rule")
        .agg(F.array_sort(F.collect_list("new")).alias("renamed"))
    )
    return (
        flat.join(antecedents, "rule")
        .withColumnRenamed("consequent", "old")
        .join(names, "old")
        .select(
            F.col("renamed").alias("antecedent"),
            F.col("new").alias("consequent"),
            "support",
            "confidence",
            "lift",
        )
    )


def dropped_tags(dropped: DataFrame, items: DataFrame) -> DataFrame:
    """`query_id` and `dropped` as tags."""
    return (
        dropped.select("query_id", F.explode("dropped").alias("item"))
        .join(F.broadcast(items.select("item", "tag")), "item")
        .groupBy("query_id")
        .agg(F.collect_list("tag").alias("dropped"))
    )


def aliases(spark: SparkSession, rules: DataFrame, items: DataFrame) -> DataFrame:
    """`tag` and `new` of each tag that a rule with one antecedent implies: what stands for it
    everywhere.

    Of several antecedents the one with the highest confidence, then support, then the most
    frequent; what stands for that one stands for both, and of a circle its most frequent member.
    The driver holds a pair of items for each such tag.
    """
    best = F.max_by("one", F.struct("confidence", "support", -F.col("one")))
    single = rules.where(F.size("antecedent") == 1).withColumn("one", F.col("antecedent")[0])
    parents = {
        row["consequent"]: row["parent"]
        for row in single.groupBy("consequent").agg(best.alias("parent")).collect()
    }
    roots = [(item, root(item, parents)) for item in parents]
    pairs = spark.createDataFrame([p for p in roots if p[0] != p[1]], "item int, root int")
    names = items.select("item", "tag")
    return (
        pairs.join(names, "item")
        .join(names.select(F.col("item").alias("root"), F.col("tag").alias("new")), "root")
        .select("tag", "new")
    )
