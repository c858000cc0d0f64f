"""Cases of tag quality (InsTag, section 3.3): drawn from an ontology version, and counterfactual
ones with a tag or a query that is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.turns import human_texts
from tagsieve.engines.vectors import Array
from tagsieve.errors import RunError
from tagsieve.judging.config import JudgeTagsConfig

CaseKind = Literal["precision", "consistency"]

MOST_ALIKE = 0.7
"""Cosine similarity from which a tag may say the same as one that it takes the place of."""

TagVectors = Callable[[Context, pa.Array], Array]
"""Vectors of distinct tags, float32 [n, d]."""


@dataclass(frozen=True)
class Case:
    """A query with its tags (precision), or a tag with queries that have it (consistency).

    `key`, `shown`: id and text of the query, or the tag twice. `ids`, `items`: of the tags, or of
    the queries. `wrong`: the index of the item that was put in, None where the case is as it was
    drawn.
    """

    kind: CaseKind
    key: str
    shown: str
    ids: tuple[str, ...]
    items: tuple[str, ...]
    wrong: int | None = None

    @property
    def control(self) -> bool:
        """Whether it is counterfactual."""
        return self.wrong is not None

    @property
    def parts(self) -> tuple[str, ...]:
        """What makes it this case."""
        return (self.kind, self.key, *self.ids)

    @property
    def number(self) -> str:
        """A short name that says nothing of what it is."""
        return hashlib.sha256("\n".join(self.parts).encode()).hexdigest()[:10]

    def with_wrong(self, place: int, key: str, item: str) -> Case:
        """The case with another item at a place."""
        ids, items = list(self.ids), list(self.items)
        ids[place], items[place] = key, item
        return Case(self.kind, self.key, self.shown, tuple(ids), tuple(items), place)


def draw_cases(
    context: Context, config: JudgeTagsConfig, version: str, vectors: TagVectors
) -> list[Case]:
    """Cases of both kinds and their controls. All are held in memory, as are the tags of the
    version with their vectors while there are controls to be made.

    Precision: distinct queries with tags, drawn at random. Consistency: of each tag its queries in
    a random order, `config.queries` of them a case; each tag gives one before any gives two.
    Controls are made of cases drawn likewise. Raises RunError where no query has tags.
    """
    seed = config.seed
    queries = context.stored("tagged-queries", _queries(context, version))
    drawn = queries.orderBy(F.xxhash64(F.lit(seed), "query_id"), "query_id")
    rows = drawn.limit(config.cases + config.controls).collect()
    if not rows:
        raise RunError(f"judge: no query has tags of ontology version {version}")
    precise = [
        Case("precision", row["query_id"], row["text"], tuple(row["tags"]), tuple(row["tags"]))
        for row in rows
    ]
    consistent = []
    for row in _by_tag(queries, config).collect():
        ids, texts = zip(*row["asked"], strict=True)
        consistent.append(Case("consistency", row["tag"], row["tag"], ids, texts))
    random = np.random.default_rng(seed)
    found = [*precise[: config.cases], *consistent[: config.cases]]
    if config.controls:
        names = queries.select(F.explode("tags").alias("tag")).distinct().orderBy("tag")
        tags = _strings(names)
        found += _wrong_tags(precise[-config.controls :], tags, vectors(context, tags), random)
        found += _wrong_queries(consistent[-config.controls :], precise, random)
    return found


def _strings(rows: DataFrame) -> pa.Array:
    """The only column of rows, in their order."""
    return rows.toArrow().column(0).combine_chunks()


def _queries(context: Context, version: str) -> DataFrame:
    """`query_id`, `text` and `tags` (distinct, sorted) of the distinct queries that have tags."""
    tags = context.pinned("tags").where(F.col("ontology_version") == version)
    rows = context.pinned("samples").join(tags.select("sample_id", "turn_tags"), "sample_id")
    turns = F.arrays_zip(
        F.col("query_ids"), human_texts().alias("text"), F.col("turn_tags").alias("tags")
    )
    turn = rows.select(F.explode(turns).alias("turn")).select("turn.*")
    return (
        turn.where(F.size("tags") > 0)
        .groupBy(F.col("query_ids").alias("query_id"))
        .agg(
            F.min("text").alias("text"), F.array_sort(F.array_distinct(F.min("tags"))).alias("tags")
        )
    )


def _by_tag(queries: DataFrame, config: JudgeTagsConfig) -> DataFrame:
    """`tag` and `asked` (query_id and text of `config.queries` queries) of as many cases as there
    are to be, controls among them."""
    count = config.cases + config.controls
    each = queries.select("query_id", F.explode("tags").alias("tag"))
    drawn = F.xxhash64(F.lit(config.seed), "tag", "query_id")
    within = Window.partitionBy("tag").orderBy(drawn, "query_id")
    each = each.withColumn("place", F.row_number().over(within))
    each = each.where(F.col("place") <= config.queries * count)
    each = each.withColumn("turn", F.floor((F.col("place") - 1) / config.queries))
    asked = F.array_sort(F.collect_list(F.struct("place", "query_id"))).alias("asked")
    groups = each.groupBy("tag", "turn").agg(asked).where(F.size("asked") == config.queries)
    order = [F.col("turn"), F.xxhash64(F.lit(config.seed), "tag"), F.col("tag")]
    chosen = groups.orderBy(*order).limit(count)
    # The texts of these alone.
    listed = chosen.select("tag", "turn", F.explode("asked").alias("each"))
    listed = listed.select("tag", "turn", "each.*").join(
        queries.select("query_id", "text"), "query_id"
    )
    told = F.array_sort(F.collect_list(F.struct("place", "query_id", "text")))
    pairs = F.transform(told, lambda each: F.struct(each["query_id"], each["text"]))
    return listed.groupBy("tag", "turn").agg(pairs.alias("asked")).orderBy(*order)


def _wrong_tags(
    cases: Sequence[Case], tags: pa.Array, vectors: Array, random: np.random.Generator
) -> list[Case]:
    """Cases in which one tag gives way to the most alike one that is yet another thing: of those
    below `MOST_ALIKE`, and none that the query has."""
    names: list[str] = tags.to_pylist()
    places = {tag: place for place, tag in enumerate(names)}
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-30)
    found = []
    for case in cases:
        place = int(random.integers(len(case.ids)))
        cosines = units @ units[[places[tag] for tag in case.ids]].T
        alike = cosines[:, place].copy()
        alike[(cosines >= MOST_ALIKE).any(axis=1)] = -np.inf
        best = int(alike.argmax())
        if np.isfinite(alike[best]):
            found.append(case.with_wrong(place, names[best], names[best]))
    return found


def _wrong_queries(
    cases: Sequence[Case], others: Sequence[Case], random: np.random.Generator
) -> list[Case]:
    """Cases in which one query gives way to one that does not have the tag (of the precision cases
    `others`)."""
    found = []
    for case in cases:
        lacking = [other for other in others if case.key not in other.ids]
        if lacking:
            other = lacking[int(random.integers(len(lacking)))]
            place = int(random.integers(len(case.ids)))
            found.append(case.with_wrong(place, other.key, other.shown))
    return found


def fields_of(case: Case) -> Mapping[str, str]:
    """The fields of the prompt."""
    if case.kind == "precision":
        listed = "\n".join(f"{n}. {tag}" for n, tag in enumerate(case.items, start=1))
        return {"query": case.shown, "tags": listed}
    listed = "\n\n".join(
        f"<query {n}>\n{text}\n</query {n}>" for n, text in enumerate(case.items, start=1)
    )
    return {"tag": case.shown, "queries": listed}


def all_right(scores: Sequence[Any]) -> bool:
    """Whether nothing of a case is wrong."""
    return all(score == 1 for score in scores)
