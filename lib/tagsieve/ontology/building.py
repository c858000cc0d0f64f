"""Making an ontology version: InsTag's steps, one after the other, each from stored rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.handover import read_all
from tagsieve.ontology import association as rules_of
from tagsieve.ontology.config import NormalizeConfig
from tagsieve.ontology.edits import Edits, FoundEdits
from tagsieve.ontology.normalization import (
    first_rows,
    frequency_step,
    query_tags,
    renamed_tags,
    renaming_step,
    rule_step,
    semantic_step,
    tag_counts,
    tag_uses,
    without_dropped,
)
from tagsieve.ontology.semantic import group_labels, semantic_names, tag_vectors


@dataclass
class Build:
    """One version in the making.

    `rows`: of `ontology`. `rules`, `items`: of `ontology_rules`, `ontology_items`. `stages`: of
    `tag_funnel`. `per_query`: `query_id`, `query_tags`.
    """

    context: Context
    config: NormalizeConfig
    edits: FoundEdits
    raw_tags: DataFrame
    samples: DataFrame
    rows: DataFrame
    per_query: DataFrame | None = None
    rules: DataFrame | None = None
    items: DataFrame | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        context: Context,
        config: NormalizeConfig,
        edits: Edits,
        raw_tags: DataFrame,
        samples: DataFrame,
    ) -> Build:
        """Count the raw tags."""
        rows = first_rows(tag_counts(raw_tags, samples, config.weight))
        build = cls(context, config, FoundEdits(edits, config), raw_tags, samples, rows)
        build._keep("raw")
        return build

    def finish(self) -> DataFrame:
        """Take all steps of the config; gives the tags of each answered query (`query_id`,
        `query_tags`). Each step leaves its rows in the run's work folder."""
        steps = {
            "frequency": self._frequency,
            "rule": self._rule,
            "semantic": self._semantic,
            "association": self._association,
        }
        for step in self.config.steps:
            if step == "association":
                self._edit()
            with self.context.console.spark_progress(
                self.context.engines.spark, f"normalize: {step}"
            ):
                steps[step]()
        if "association" not in self.config.steps:
            self._edit()
        if self.per_query is None:
            self.per_query = query_tags(self.raw_tags, self.rows)
        return self.per_query

    def _frequency(self) -> None:
        if self.config.steps[0] == "frequency":
            uses = self.rows.select("tag", F.col("count").alias("uses"))
        else:
            uses = tag_uses(self.rows, self.raw_tags, self.samples, self.config.weight)
        self.rows = frequency_step(self.rows, uses, self.config.min_count)
        self._keep("frequency")

    def _rule(self) -> None:
        before = self.rows.select("raw_tag", F.col("tag").alias("old"))
        self.rows = rule_step(self.rows, self.config.rule, self.edits.apart_surfaces)
        self._keep("rule", before)

    def _semantic(self) -> None:
        before = self.rows.select("raw_tag", F.col("tag").alias("old"))
        self.rows = semantic_step(self.rows, self._semantic_names())
        self._keep("semantic", before)

    def _semantic_names(self) -> DataFrame:
        """`tag` and `semantic_tag` of each distinct tag."""
        context, config = self.context, self.config.semantic
        spark = context.engines.spark
        distinct = (
            self.rows.where(F.col("tag").isNotNull())
            .groupBy("tag")
            .agg(F.sum("count").alias("uses"))
        )
        table = read_all(context, "semantic-tags", distinct)
        if not table.num_rows:
            return distinct.select("tag", F.col("tag").alias("semantic_tag"))
        table = table.take(pc.sort_indices(table["tag"]))
        tags = table["tag"].combine_chunks()
        engines, console = context.engines, context.console
        vectors = tag_vectors(context.lake, tags, config, engines, console)
        engines.ray()
        labels = group_labels(vectors, config, engines.ray_config, console)
        there = self._named_tags()
        apart = [
            frozenset(there[name] for name in names if name in there) for names in self.edits.apart
        ]
        uses = table["uses"].to_numpy()
        names = semantic_names(tags, uses, vectors, labels, config.max_diameter, apart)
        made = pa.table({"tag": tags, "semantic_tag": names})
        return spark.createDataFrame(made)

    def _edit(self) -> None:
        """Merge and rename by hand, after all that merges by rule, before what queries lose."""
        if self.edits.edits == Edits():
            return
        there = self._named_tags()
        wanted = self.edits.names
        pairs = [(there[name], new) for name, new in wanted.items() if name in there]
        spark = self.context.engines.spark
        made = spark.createDataFrame(sorted(set(pairs)), "tag string, new string")
        self.rows = renaming_step(self.rows, made)
        self._keep("edits")
        for line in self.edits.told(there):
            self.context.console.line(f"edits: {line}")

    def _named_tags(self) -> dict[str, str]:
        """The tag that each form named in the edits stands in now."""
        names = self.edits.names.keys() | set().union(*self.edits.apart)
        if not names:
            return {}
        form = F.col("stem" if "rule" in self.config.steps else "raw_tag")
        rows = self.rows.where(form.isin(sorted(names)) & F.col("tag").isNotNull())
        return {row["form"]: row["tag"] for row in rows.select(form.alias("form"), "tag").collect()}

    def _association(self) -> None:
        context, config = self.context, self.config.association
        spark = context.engines.spark
        self.rows = self.rows.withColumn("item_tag", F.col("tag"))
        per_query = self.context.stored("baskets", query_tags(self.raw_tags, self.rows))
        baskets = per_query.select("query_id", F.col("query_tags").alias("tags"))
        items = self.context.stored("items", rules_of.frequent_items(baskets, config.min_support))
        numbered = self.context.stored("item-baskets", rules_of.item_baskets(baskets, items))
        mined = numbered.select("query_id", F.slice("items", 1, config.max_basket).alias("items"))
        context.run.metrics["capped_baskets"] = float(
            numbered.where(F.size("items") > config.max_basket).count()
        )
        rules = self.context.stored(
            "rules", rules_of.mine(mined, items, baskets.count(), config, context.console)
        )
        self.rules = rules_of.named_rules(rules, items)
        self.items = items.withColumn("item", F.col("item").cast("long"))
        context.run.metrics["rules"] = float(rules.count())
        if config.apply == "alias":
            aliases = rules_of.aliases(spark, rules, items)
            self.rows = renaming_step(self.rows, aliases)
            self._keep("association")
        else:
            dropped = rules_of.dropped_tags(rules_of.dropped_items(numbered, rules), items)
            self.per_query = self.context.stored("left", without_dropped(per_query, dropped))
            self._stage("association", *_left(self.per_query))

    def _keep(self, stage: str, before: DataFrame | None = None) -> None:
        """Store the rows after a step, and count what is left.

        `before`: `old` tag of each raw tag; tags of queries that rules have gone through already
        are renamed, too.
        """
        self.rows = self.context.stored(f"rows-{stage}", self.rows)
        if self.per_query is not None and before is not None:
            names = (
                before.join(self.rows, "raw_tag")
                .where(F.col("old").isNotNull())
                .select(F.col("old").alias("tag"), F.col("tag").alias("new"))
                .distinct()
            )
            renamed = renamed_tags(self.per_query, names)
            self.per_query = self.context.stored(f"queries-{stage}", renamed)
            self._stage(stage, *_left(self.per_query))
        else:
            kept = F.col("tag").isNotNull()
            told = self.rows.agg(
                F.countDistinct("tag").alias("tags"),
                F.coalesce(F.sum(F.when(kept, F.col("count"))), F.lit(0)).alias("occurrences"),
            ).first()
            assert told is not None
            self._stage(stage, told["tags"], told["occurrences"])

    def _stage(self, stage: str, tags: int, occurrences: int) -> None:
        position = len(self.stages)
        self.stages.append(
            {"position": position, "stage": stage, "tags": tags, "occurrences": occurrences}
        )


def _left(per_query: DataFrame) -> tuple[int, int]:
    """Distinct tags, and their occurrences, in queries."""
    told = (
        per_query.select(F.explode("query_tags").alias("tag"))
        .agg(F.countDistinct("tag").alias("tags"), F.count("*").alias("occurrences"))
        .first()
    )
    assert told is not None
    return told["tags"], told["occurrences"]
