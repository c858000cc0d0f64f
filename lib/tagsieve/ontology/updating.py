"""New rows join an ontology version: their tags are mapped, counted, and wait where none is near.

An update reads the new rows, and of the old ones only keys: which queries and conversations there
were. What it writes is in proportion to the new rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.handover import read_all
from tagsieve.lake import rows_table
from tagsieve.ontology import association as rules_of
from tagsieve.ontology.config import NormalizeConfig
from tagsieve.ontology.dbscan import nearest
from tagsieve.ontology.edits import FoundEdits
from tagsieve.ontology.normalization import (
    apart_stems,
    display_forms,
    query_weights,
    renamed_tags,
    sample_tags,
    with_forms,
    without_dropped,
)
from tagsieve.ontology.semantic import CHUNK_TAGS, tag_vectors

MADE = ("surface", "stem", "rule_tag", "semantic_tag", "item_tag", "tag")
"""What the steps made of a raw tag."""

MAPPED = {"known": "known", "stem": "by_stem", "similar": "by_similarity", "edit": "by_edit",
          "grown": "grown"}  # fmt: skip
"""How a raw tag came to its tag -> the column of `ontology_updates` that counts it."""


@dataclass(frozen=True)
class Drift:
    """What an update found: `figures` of `ontology_updates`, raw tags by the way they came
    (`ways`), and why a rebuild is due after it (None: it is not)."""

    figures: dict[str, int]
    ways: dict[str, int]
    due: str | None

    def told(self) -> str:
        """One line: how the occurrences of tags came to their tags."""
        total = max(self.figures["occurrences"], 1)
        words = [("known", "known"), ("by_stem", "by stem"), ("by_similarity", "by similarity"),
                 ("by_edit", "by hand"), ("grown", "grown"), ("rare", "rare"),
                 ("pending", "pending")]  # fmt: skip
        shares = [f"{self.figures[c] / total:.1%} {w}" for c, w in words if self.figures[c]]
        return (
            f"{self.figures['samples']:,} conversations, {self.figures['occurrences']:,} "
            f"occurrences of tags: {', '.join(shares) or 'none'}"
        )


def current(rows: DataFrame) -> DataFrame:
    """One row for each raw tag of a version: what its newest update says, and all its counts."""
    newest = F.max_by(F.struct("status", "how", *MADE), "update")
    return (
        rows.groupBy("raw_tag")
        .agg(F.sum("count").alias("count"), newest.alias("newest"))
        .select("raw_tag", "count", "newest.*")
    )


def names_of(context: Context, version: str) -> DataFrame:
    """`raw_tag` and `tag` of each raw tag that has one in a version."""
    rows = context.pinned("ontology").where(F.col("version") == version)
    update = F.coalesce("update", F.lit(0))  # none in rows of an earlier tagsieve
    names = current(rows.withColumn("update", update)).select("raw_tag", "tag")
    return names.where(F.col("tag").isNotNull())


class Update:
    """Update number `number` of a version: from what the lake was `before` to what it is at
    `read` (table -> version)."""

    def __init__(
        self,
        context: Context,
        made: Mapping[str, Any],
        config: NormalizeConfig,
        edits: FoundEdits,
        number: int,
        before: Mapping[str, int],
        read: Mapping[str, int],
    ) -> None:
        self._context, self._config, self._edits = context, config, edits
        self._version: str = made["version"]
        self._tagger: str = made["tagger"]
        self.number, self._before, self._read = number, before, read
        self._samples_now = self._at("samples", read)
        self._raw_tags_now = self._at("raw_tags", read)
        # As the lake is: this update's own rows are not among these until it is done.
        update = F.coalesce("update", F.lit(0))  # none in rows of an earlier tagsieve
        ontology = self._of_version("ontology").withColumn("update", update)
        self._old = ontology.where(F.col("update") < number)
        tags = context.lake.read(context.engines.spark, "tags")
        self._done = tags.where(F.col("ontology_version") == self._version).select("sample_id")

    # --- the new rows --------------------------------------------------------------------------

    def _at(self, name: str, versions: Mapping[str, int]) -> DataFrame:
        rows = self._context.lake.read(self._context.engines.spark, name, versions[name])
        return rows.where(F.col("tagger") == self._tagger) if name == "raw_tags" else rows

    def _of_version(self, name: str) -> DataFrame:
        rows = self._context.lake.read(self._context.engines.spark, name)
        return rows.where(F.col("version") == self._version)

    def find_new(self) -> bool:
        """Find the conversations without tags in this version (`samples` is how many), and the
        queries that no update counted (`queries`); False where there are none."""
        context = self._context
        before = self._at("raw_tags", self._before), self._at("samples", self._before)
        now, then = (
            query_weights(raw_tags.select("query_id"), samples, self._config.weight)
            for raw_tags, samples in ((self._raw_tags_now, self._samples_now), before)
        )
        earlier = then.withColumnRenamed("weight", "earlier")
        added = F.col("weight") - F.coalesce("earlier", F.lit(0))
        self._queries = context.stored(
            "new-queries",
            now.join(earlier, "query_id", "left")
            .select("query_id", added.alias("weight"))
            .where(F.col("weight") > 0),
        )
        answered = self._raw_tags_now.select("query_id")
        asked = (
            self._samples_now.select("sample_id", "query_ids")
            .dropDuplicates(["sample_id"])
            .join(self._done, "sample_id", "left_anti")
            .select("sample_id", "query_ids", F.explode("query_ids").alias("query_id"))
        )
        self._samples = context.stored(
            "new-samples",
            asked.join(answered.withColumn("answered", F.lit(1)), "query_id", "left")
            .groupBy("sample_id")
            .agg(F.any_value("query_ids").alias("query_ids"), F.every(F.col("answered") == 1))
            .toDF("sample_id", "query_ids", "whole")
            .where("whole")
            .drop("whole"),
        )
        self.samples, self.queries = self._samples.count(), self._queries.count()
        return bool(self.samples or self.queries)

    def _answers(self) -> DataFrame:
        """`query_id` and `tags` (distinct strings) of the new queries, and of those that the new
        conversations have; reads only the files of `raw_tags` that hold one of them."""
        spark = self._context.engines.spark
        wanted = (
            self._samples.select(F.explode("query_ids").alias("query_id"))
            .union(self._queries.select("query_id"))
            .distinct()
        )
        raw_tags = self._raw_tags_now.select("query_id", "tags")
        holding = raw_tags.select("query_id", F.input_file_name().alias("file"))
        files = holding.join(wanted, "query_id", "left_semi").select("file").distinct()
        places = [unquote(row["file"]) for row in files.collect()]
        rows = (
            spark.read.schema(raw_tags.schema).option("__globPaths__", "false").parquet(*places)
            if places
            else spark.createDataFrame([], raw_tags.schema)
        )
        tags = F.array_compact(F.array_distinct("tags.tag"))
        return rows.join(wanted, "query_id", "left_semi").select("query_id", tags.alias("tags"))

    # --- their tags ----------------------------------------------------------------------------

    def map_tags(self) -> Drift:
        """Find the tag of each raw tag of the new queries; gives what was found."""
        context = self._context
        self._answered = context.stored("answers", self._answers())
        counts = (
            self._answered.join(self._queries, "query_id")
            .select(F.explode("tags").alias("raw_tag"), "weight")
            .groupBy("raw_tag")
            .agg(F.sum("weight").cast("long").alias("new"))
        )
        self._current = context.stored("current", current(self._old))
        total = F.col("new") + F.coalesce("count", F.lit(0))
        met = counts.join(self._current, "raw_tag", "left").withColumn("total", total)
        met = context.stored("met", met)
        has_tag = F.col("tag").isNotNull()
        known = met.where(has_tag).withColumns({"count": F.col("new"), "way": F.lit("known")})
        found = self._mapped(met.where(~has_tag).select("raw_tag", "new", "total", "status"))
        self._rows = context.stored("update", known.select(found.columns).unionByName(found))
        return self._drift()

    def _mapped(self, unknown: DataFrame) -> DataFrame:
        """Rows of raw tags without a tag so far, and the `way` they came to one.

        First a tag with their stem, then the edits, then the nearest tag within eps, then a tag of
        their own once they are met often enough. What was rare when the version was built waits
        until then for all of these.
        """
        config, context = self._config, self._context
        forms = context.stored("unknown", self._with_enough(self._with_forms(unknown)))
        tags = self._current.where(F.col("tag").isNotNull())
        matched = forms.join(_made_by("stem", tags, "by_stem"), "stem", "left").join(
            self._named_by_hand(), "stem", "left"
        )
        waiting = matched.where("open AND by_stem IS NULL AND by_hand IS NULL")
        phrases = context.stored(
            "phrases",
            display_forms(waiting.withColumnRenamed("total", "count"))
            .select("stem", F.col("rule_tag").alias("phrase"))
            .distinct(),
        )
        grows = waiting.groupBy("stem").agg(F.max("often").alias("grows"))
        groups = phrases.join(grows, "stem").join(self._near(phrases, tags), "phrase", "left")
        there = {name: name in config.steps for name in ("rule", "semantic", "association")}

        def made(semantic: Column, item: Column, tag: Column) -> Column:
            return F.struct(
                (F.col("phrase") if there["rule"] else _none()).alias("rule_tag"),
                (semantic if there["semantic"] else _none()).alias("semantic_tag"),
                (item if there["association"] else _none()).alias("item_tag"),
                tag.alias("tag"),
            )

        hand, phrase, near = F.col("by_hand"), F.col("phrase"), F.col("near")
        rows = matched.join(groups, "stem", "left").withColumn(
            "phrase", F.coalesce("phrase", "surface")
        )
        is_open = F.col("open")
        how = (
            F.when(is_open & F.col("by_stem").isNotNull(), "stem")
            .when(is_open & hand.isNotNull(), "edit")
            .when(is_open & near.isNotNull(), "similar")
            # Spellings of a tag that grows, not met often enough themselves, have its stem.
            .when(is_open & F.col("grows"), F.when(F.col("often"), "grown").otherwise("stem"))
        )
        rows = rows.withColumn("how", how).withColumn(
            "made",
            F.when(F.col("how").isNull(), None)
            .when(F.col("by_stem").isNotNull(), F.col("by_stem"))
            .when(hand.isNotNull(), made(hand, hand, hand))
            .when(near.isNotNull(), made(near["semantic_tag"], near["item_tag"], near["tag"]))
            .otherwise(made(phrase, phrase, phrase)),
        )
        waits = F.coalesce("status", F.lit("pending"))
        return rows.select(
            "raw_tag",
            F.col("new").alias("count"),
            F.when(F.col("how").isNotNull(), "kept").otherwise(waits).alias("status"),
            "how",
            *((F.col(name) if there["rule"] else _none()).alias(name) for name in MADE[:2]),
            *(F.col("made")[name].alias(name) for name in MADE[2:]),
            F.coalesce("how", waits).alias("way"),
        )

    def _with_forms(self, unknown: DataFrame) -> DataFrame:
        """`unknown` with `surface` and `stem`; without the rule step a tag is its own."""
        if "rule" not in self._config.steps:
            tag = F.col("raw_tag")
            return unknown.withColumns({"surface": tag, "stem": tag})
        tags = unknown.select(F.col("raw_tag").alias("tag"), F.col("total").alias("count"))
        forms = apart_stems(with_forms(tags, self._config.rule), self._edits.apart_surfaces)
        return unknown.join(
            forms.select(F.col("tag").alias("raw_tag"), "surface", "stem"), "raw_tag"
        )

    def _with_enough(self, forms: DataFrame) -> DataFrame:
        """`forms` with `often`: met as often as a tag must be; and `open`: may have a tag now."""
        steps = self._config.steps
        least = self._config.min_count if "frequency" in steps else 1
        if "rule" in steps and "frequency" in steps[steps.index("rule") :]:
            # Counts were of stems; a query with two spellings counts for each of them here.
            new = forms.groupBy("stem").agg(F.sum("new").alias("met"))
            waiting = self._current.where("tag IS NULL").groupBy("stem")
            both = new.join(waiting.agg(F.sum("count").alias("waited")), "stem", "left")
            enough = F.col("met") + F.coalesce("waited", F.lit(0))
            forms = forms.join(both.select("stem", enough.alias("enough")), "stem")
        else:
            forms = forms.withColumn("enough", F.col("total"))
        often = F.col("enough") >= least
        waits = F.coalesce("status", F.lit("pending")) == "pending"
        return forms.withColumns({"often": often, "open": waits | often}).drop("enough")

    def _named_by_hand(self) -> DataFrame:
        """`stem` and `by_hand` of the tags that the edits name."""
        return self._context.engines.spark.createDataFrame(
            sorted(self._edits.names.items()), "stem string, by_hand string"
        )

    def _near(self, phrases: DataFrame, tags: DataFrame) -> DataFrame:
        """`phrase` and `near`: what was made of the nearest tag within eps of a phrase. The driver
        holds the vectors of the version's tags and of the phrases."""
        config, context = self._config, self._context
        spark = context.engines.spark
        made = ", ".join(f"{name}: string" for name in MADE[2:])
        nothing = spark.createDataFrame([], f"phrase string, near struct<{made}>")
        if "semantic" not in config.steps:
            return nothing
        rule_first = "rule" in config.steps[: config.steps.index("semantic")]
        of = "rule_tag" if rule_first else "raw_tag"
        known = _made_by(of, tags.where("how IS NULL OR how <> 'similar'"), "near")
        apart = F.col("stem").isin(sorted(self._edits.apart_surfaces))
        new_names, known_names = (
            read_all(context, name, frame)
            for name, frame in (
                ("new-phrases", phrases.where(~apart).select("phrase")),
                ("known-phrases", known.select(of)),
            )
        )
        if not new_names.num_rows or not known_names.num_rows:
            return nothing
        found = self._nearest(
            new_names["phrase"].combine_chunks(), known_names[of].combine_chunks()
        )
        pairs = spark.createDataFrame(found.to_pandas(), f"phrase string, {of} string")
        return pairs.join(known, of).select("phrase", "near")

    def _nearest(self, new: pa.Array, known: pa.Array) -> pa.Table:
        context, config = self._context, self._config.semantic
        new, known = (names.take(pc.sort_indices(names)) for names in (new, known))
        known_vectors, vectors = (
            tag_vectors(context.lake, names, config, context.engines, context.console)
            for names in (known, new)
        )
        places = nearest(known_vectors, vectors, config.eps, CHUNK_TAGS)
        near = np.flatnonzero(places >= 0)
        return pa.table({"phrase": new.take(near), "near": known.take(places[near])})

    def _drift(self) -> Drift:
        """Figures of this update, and whether a rebuild is due, by all updates of the version."""
        by_way = self._rows.groupBy("way").agg(
            F.sum("count").alias("uses"), F.count("*").alias("tags")
        )
        found = by_way.collect()
        counts = {row["way"]: row["uses"] for row in found}
        figures = {
            "samples": self.samples,
            "queries": self.queries,
            "occurrences": sum(counts.values()),
            "rare": counts.get("rare", 0),
            "pending": counts.get("pending", 0),
            **{column: counts.get(way, 0) for way, column in MAPPED.items()},
        }
        lake = self._context.lake
        earlier = lake.arrow("ontology_updates", filters=[("version", "=", self._version)])
        updates = [row for row in earlier.to_pylist() if row["update"] < self.number]
        total = {name: n + sum(row[name] for row in updates) for name, n in figures.items()}
        built = self._old.where("update = 0").agg(
            F.coalesce(F.sum("count"), F.lit(0)).alias("all"),
            F.coalesce(F.sum(F.when(F.col("status") != "kept", F.col("count"))), F.lit(0)).alias(
                "rare"
            ),
        ).first()  # fmt: skip
        assert built is not None
        whole = max(built["all"] + total["occurrences"], 1)
        expected = total["occurrences"] * built["rare"] / max(built["all"], 1)
        lacking = total["rare"] + total["pending"] - expected
        built_from = self._done.count() - sum(row["samples"] for row in updates)
        when = self._config.rebuild_when
        due = [
            f"{share:.0%} {what} (rebuild_when.{name}={most})"
            for name, share, most, what in (
                ("pending", lacking / whole, when.pending,
                 "of all occurrences of tags lack a tag beyond what the build left"),
                ("similar", total["by_similarity"] / whole, when.similar,
                 "of all occurrences of tags were mapped by similarity"),
                ("growth", total["samples"] / max(built_from, 1), when.growth,
                 "as many conversations came since as it was built from"),
            )
            if share > most
        ]  # fmt: skip
        ways = {row["way"]: row["tags"] for row in found}
        return Drift(figures, ways, "; ".join(due) or None)

    # --- their conversations -------------------------------------------------------------------

    def _query_tags(self) -> DataFrame:
        config, context = self._config, self._context
        raw = F.col("raw_tag").alias("tag")
        given = self._answered.select("query_id", F.col("tags").alias("query_tags"))
        names = self._current.unionByName(
            self._rows.join(self._current.where("tag IS NOT NULL"), "raw_tag", "left_anti"),
            allowMissingColumns=True,
        ).where("tag IS NOT NULL")
        if "association" not in config.steps or config.association.apply == "alias":
            return renamed_tags(given, names.select(raw, F.col("tag").alias("new")))
        item_tag = F.coalesce("item_tag", "tag")
        per_query = context.stored(
            "new-item-tags", renamed_tags(given, names.select(raw, item_tag.alias("new")))
        )
        items = self._of_version("ontology_items").withColumn("item", F.col("item").cast("int"))
        rules = rules_of.item_rules(self._of_version("ontology_rules"), items)
        baskets = rules_of.item_baskets(
            per_query.select("query_id", F.col("query_tags").alias("tags")), items
        )
        dropped = rules_of.dropped_tags(rules_of.dropped_items(baskets, rules), items)
        left = without_dropped(per_query, dropped)
        final = names.select(item_tag.alias("tag"), F.col("tag").alias("new")).distinct()
        return renamed_tags(left, final)

    def write(self, drift: Drift, begun: bool) -> None:
        """Write the update: its row in `ontology_updates` (unless it was `begun` before), its rows
        of `ontology`, and, which is its commit, the tags of the conversations."""
        context, lake = self._context, self._context.lake
        version = F.lit(self._version)
        if not begun:
            row = {
                "version": self._version,
                "update": self.number,
                **drift.figures,
                "due": drift.due,
                "read_versions": dict(self._read),
                "created": datetime.now(UTC),
                "run_id": context.run.run_id,
            }
            lake.append_next(
                "ontology_updates",
                rows_table("ontology_updates", [row]),
                updates_of(self._version),
                self.number - 1,
            )
        lake.replace(
            self._rows.withColumns({"version": version, "update": F.lit(self.number).cast("long")}),
            "ontology",
            {"version": self._version, "update": self.number},
        )
        tags = sample_tags(self._samples, context.stored("new-tags", self._query_tags()))
        lake.append(
            tags.withColumns({"tagger": F.lit(self._tagger), "ontology_version": version}),
            "tags",
            (updates_of(self._version), self.number),
        )


def updates_of(version: str) -> str:
    """The application whose transactions number the updates of a version."""
    return f"updates of {version}"


def _none() -> Column:
    return F.lit(None).cast("string")


def _made_by(column: str, tags: DataFrame, name: str) -> DataFrame:
    """`column` and, as `name`, what the steps made of the most used raw tag that has it."""
    made = F.max_by(F.struct(*MADE[2:]), F.struct("count", "raw_tag"))
    return tags.where(F.col(column).isNotNull()).groupBy(column).agg(made.alias(name))
