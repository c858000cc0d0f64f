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

from tagsieve.ontology.config import NormalizeConfig, RuleConfig


def tag_counts(raw_tags: DataFrame, samples: DataFrame, config: NormalizeConfig) -> DataFrame:
    """`raw_tag` and `count`: in how many distinct queries (or human turns) each raw tag stands.

    Reads `query_id`, `tags` of one tagger's `raw_tags`, and `query_ids` of `samples`: only queries
    that a sample has are counted.
    """
    asked = samples.select(F.explode("query_ids").alias("query_id"))
    weights = (
        asked.distinct().withColumn("weight", F.lit(1))
        if config.weight == "queries"
        else asked.groupBy("query_id").agg(F.count("*").alias("weight"))
    )
    once = raw_tags.select("query_id", F.array_distinct("tags.tag").alias("tags"))
    return (
        once.join(weights, "query_id")
        .select(F.explode("tags").alias("raw_tag"), "weight")
        .groupBy("raw_tag")
        .agg(F.sum("weight").cast("long").alias("count"))
    )


def with_forms(counts: DataFrame, config: RuleConfig) -> DataFrame:
    """Add `surface` and `stem` to one row per raw tag (an Arrow UDF: NLTK is Python)."""

    def forms(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        from tagsieve.ontology.rules import TagRule

        rule = TagRule(config)
        for batch in batches:
            tags = batch.column("raw_tag").to_pylist()
            surface = pa.array([rule.surface(tag) for tag in tags], pa.string())
            stem = pa.array([rule.stem(tag) for tag in tags], pa.string())
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, surface, stem], [*batch.schema.names, "surface", "stem"]
            )

    return counts.mapInArrow(forms, "raw_tag string, count long, surface string, stem string")


def display_forms(forms: DataFrame) -> DataFrame:
    """`stem` and `rule_tag`: the most frequent surface form of each stem, then the shortest, then
    the least. Reads `stem`, `surface`, `count`."""
    surfaces = forms.groupBy("stem", "surface").agg(F.sum("count").alias("uses"))
    least_first = F.struct(-F.col("uses"), F.length("surface"), F.col("surface"))
    return surfaces.groupBy("stem").agg(F.min_by("surface", least_first).alias("rule_tag"))


def ontology_rows(counts: DataFrame, config: NormalizeConfig) -> DataFrame:
    """One row per raw tag: `raw_tag`, `count`, `status`, `rule_tag`, `tag`.

    `status` is `kept` or `rare` (seen less than `min_count` times, by raw string or, with
    `count_after: rule`, by stem). `rule_tag` is the display form of the tag's stem group: the most
    frequent surface form among its kept tags, then the shortest, then the least. `tag` is the tag
    after all steps, null where it was dropped.
    """
    forms = with_forms(counts, config.rule)
    if config.count_after == "rule":
        measured = F.sum("count").over(Window.partitionBy("stem"))
    else:
        measured = F.col("count")
    status = F.when(measured >= config.min_count, "kept").otherwise("rare")
    rows = forms.withColumn("status", status)
    display = display_forms(rows.where(F.col("status") == "kept"))
    return rows.join(display, "stem", "left").select(
        "raw_tag",
        "count",
        "status",
        F.when(F.col("status") == "kept", F.col("rule_tag")).alias("rule_tag"),
        F.when(F.col("status") == "kept", F.col("rule_tag")).alias("tag"),
    )


def sample_tags(samples: DataFrame, raw_tags: DataFrame, ontology: DataFrame) -> DataFrame:
    """Normalised tags of each content: `sample_id`, `tags` (sorted union), `turn_tags` (per turn).

    A sample has a row when the tagger answered all its queries; a turn on which it abstained has
    an empty list. Reads `query_ids` of `samples`, `query_id`, `tags` of `raw_tags`, and `raw_tag`,
    `tag` of one ontology version.
    """
    kept = ontology.where(F.col("tag").isNotNull()).select("raw_tag", "tag")
    per_query = (
        raw_tags.select("query_id", F.explode_outer("tags.tag").alias("raw_tag"))
        .join(kept, "raw_tag", "left")
        .groupBy("query_id")
        .agg(F.array_sort(F.collect_set("tag")).alias("query_tags"))
    )
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
