"""The relations of normalisation (InsTag, section 3.2): frames and a config in, a frame out.

Everything runs on distinct tags: the rows of `raw_tags` are read to count, and once more to be
rewritten, never for a rule.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from tagsieve.ontology.config import RuleConfig


def tag_counts(raw_tags: DataFrame, samples: DataFrame, weight: str) -> DataFrame:
    """`raw_tag` and `count`: in how many distinct queries (or human turns) each raw tag stands.

    Reads `query_id`, `tags` of one tagger's `raw_tags`, and, to count turns, `query_ids` of
    `samples`.
    """
    once = raw_tags.select("query_id", F.array_distinct("tags.tag").alias("tags"))
    return (
        query_weights(once, samples, weight)
        .select(F.explode("tags").alias("raw_tag"), "weight")
        .where(F.col("raw_tag").isNotNull())
        .groupBy("raw_tag")
        .agg(F.sum("weight").cast("long").alias("count"))
    )


def query_weights(queries: DataFrame, samples: DataFrame, weight: str) -> DataFrame:
    """`queries` (distinct `query_id`) with the `weight` that each counts with: 1, or the human
    turns that ask it."""
    if weight == "queries":
        return queries.withColumn("weight", F.lit(1))
    asked = samples.select(F.explode("query_ids").alias("query_id"))
    return queries.join(asked.groupBy("query_id").agg(F.count("*").alias("weight")), "query_id")


def first_rows(counts: DataFrame) -> DataFrame:
    """The rows of an ontology before any step: every raw tag kept, as itself."""
    empty = F.lit(None).cast("string")
    return counts.select(
        "raw_tag",
        "count",
        F.lit("kept").alias("status"),
        F.lit("built").alias("how"),
        *(empty.alias(n) for n in ("surface", "stem", "rule_tag", "semantic_tag", "item_tag")),
        F.col("raw_tag").alias("tag"),
    )


def tag_uses(rows: DataFrame, raw_tags: DataFrame, samples: DataFrame, weight: str) -> DataFrame:
    """`tag` and `uses`: `tag_counts` of what the raw tags have become, a query counted once for
    each tag whatever number of its raw tags became that one."""
    once = (
        raw_tags.select("query_id", F.explode("tags.tag").alias("raw_tag"))
        .join(rows.where(F.col("tag").isNotNull()).select("raw_tag", "tag"), "raw_tag")
        .select("query_id", "tag")
        .distinct()
    )
    return (
        query_weights(once, samples, weight)
        .groupBy("tag")
        .agg(F.sum("weight").cast("long").alias("uses"))
    )


def frequency_step(rows: DataFrame, uses: DataFrame, min_count: int) -> DataFrame:
    """Tags with fewer `uses` (of `tag`) than `min_count` become `rare`: their rows have no tag."""
    rare = F.coalesce("uses", F.lit(0)) < min_count
    return (
        rows.join(uses, "tag", "left")
        .withColumn(
            "status", F.when(F.col("tag").isNotNull() & rare, "rare").otherwise(F.col("status"))
        )
        .withColumn("tag", F.when(F.col("status") == "kept", F.col("tag")))
        .drop("uses")
    )


def rule_step(
    rows: DataFrame, config: RuleConfig, apart: frozenset[str] = frozenset()
) -> DataFrame:
    """Tags with one stem become one tag, `rule_tag`: its most frequent surface form, then the
    shortest, then the least. Surface forms in `apart` are their own stems."""
    tags = rows.where(F.col("tag").isNotNull()).groupBy("tag").agg(F.sum("count").alias("count"))
    forms = apart_stems(with_forms(tags, config), apart)
    made = display_forms(forms).select("tag", "surface", "stem", "rule_tag")
    return _renamed(rows.drop("surface", "stem", "rule_tag"), made, "rule_tag")


def semantic_step(rows: DataFrame, names: DataFrame) -> DataFrame:
    """Tags become `semantic_tag` of `names` (`tag`, `semantic_tag`)."""
    return _renamed(rows.drop("semantic_tag"), names, "semantic_tag")


def renaming_step(rows: DataFrame, names: DataFrame) -> DataFrame:
    """Tags become `new` of `names` (`tag`, `new`), where they have one."""
    joined = rows.join(names, "tag", "left")
    return joined.withColumn("tag", F.coalesce("new", "tag")).drop("new")


def _renamed(rows: DataFrame, made: DataFrame, column: str) -> DataFrame:
    return rows.join(made, "tag", "left").withColumn("tag", F.col(column))


def with_forms(tags: DataFrame, config: RuleConfig) -> DataFrame:
    """Add `surface` and `stem` to rows of `tag` and `count` (an Arrow UDF: NLTK is Python)."""

    def forms(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        from tagsieve.ontology.rules import TagRule

        rule = TagRule(config)
        for batch in batches:
            tags = batch.column("tag").to_pylist()
            surface = pa.array([rule.surface(tag) for tag in tags], pa.string())
            stem = pa.array([rule.stem(tag) for tag in tags], pa.string())
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, surface, stem], [*batch.schema.names, "surface", "stem"]
            )

    return tags.mapInArrow(forms, "tag string, count long, surface string, stem string")


def apart_stems(forms: DataFrame, apart: frozenset[str]) -> DataFrame:
    """`forms` in which the surface forms in `apart` are their own stems."""
    if not apart:
        return forms
    own = F.col("surface").isin(sorted(apart))
    return forms.withColumn("stem", F.when(own, F.col("surface")).otherwise(F.col("stem")))


def display_forms(forms: DataFrame) -> DataFrame:
    """Add `rule_tag`: the most frequent surface form of each stem, then the shortest, then the
    least. Reads `stem`, `surface`, `count`."""
    uses = F.sum("count").over(Window.partitionBy("stem", "surface"))
    least_first = F.struct(-F.col("uses"), F.length("surface"), F.col("surface"))
    best = F.min_by("surface", least_first).over(Window.partitionBy("stem"))
    return forms.withColumn("uses", uses).withColumn("rule_tag", best).drop("uses")


def query_tags(raw_tags: DataFrame, rows: DataFrame) -> DataFrame:
    """`query_id` and `query_tags` (each once, sorted) of every answered query."""
    names = rows.where(F.col("tag").isNotNull()).select(
        F.col("raw_tag").alias("tag"), F.col("tag").alias("new")
    )
    given = raw_tags.select("query_id", F.col("tags.tag").alias("query_tags"))
    return renamed_tags(given, names)


def without_dropped(per_query: DataFrame, dropped: DataFrame) -> DataFrame:
    """`query_tags` less what `dropped` (`query_id`, `dropped`: tags) names."""
    left = F.array_except("query_tags", F.coalesce("dropped", F.array().cast("array<string>")))
    return per_query.join(dropped, "query_id", "left").select("query_id", left.alias("query_tags"))


def renamed_tags(per_query: DataFrame, names: DataFrame) -> DataFrame:
    """`query_tags` with each tag as `new` of `names` (`tag`, `new`), each once, sorted."""
    return (
        per_query.select("query_id", F.explode_outer("query_tags").alias("tag"))
        .join(names, "tag", "left")
        .groupBy("query_id")
        .agg(F.array_sort(F.collect_set("new")).alias("query_tags"))
    )


def sample_tags(samples: DataFrame, per_query: DataFrame) -> DataFrame:
    """Normalised tags of each content: `sample_id`, `tags` (sorted union), `turn_tags` (per turn).

    A sample has a row when the tagger answered all its queries; a turn on which it abstained has
    an empty list. Reads `sample_id`, `query_ids` of `samples`, `query_id`, `query_tags` of the
    answered queries.
    """
    turns = (
        samples.select("sample_id", "query_ids")
        .dropDuplicates(["sample_id"])
        .select("sample_id", F.posexplode("query_ids").alias("turn", "query_id"))
    )
    return (
        turns.join(per_query, "query_id", "left")
        .groupBy("sample_id")
        .agg(
            F.array_sort(F.collect_list(F.struct("turn", "query_tags"))).alias("by_turn"),
            F.count_if(F.col("query_tags").isNull()).alias("untagged"),
        )
        .where(F.col("untagged") == 0)
        .select(
            "sample_id",
            F.array_sort(F.array_distinct(F.flatten("by_turn.query_tags"))).alias("tags"),
            F.col("by_turn.query_tags").alias("turn_tags"),
        )
    )
