"""How well a tagger gives the tags of its teacher (InsTag, section 5), on queries held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.config import RayConfig
from tagsieve.engines.context import Context
from tagsieve.engines.examples import check_file, queries_of_file, tagged_queries
from tagsieve.engines.handover import Parts, read_chunks
from tagsieve.engines.held_out import held_out
from tagsieve.engines.quarantine import quarantined
from tagsieve.engines.vectors import Array
from tagsieve.errors import RunError, UsageError
from tagsieve.evaluating.config import TRAINED_SHARE, EvaluateTagsConfig
from tagsieve.evaluating.matching import (
    FOUND,
    WAYS,
    by_query,
    folded,
    measures_of,
    near_tags,
)
from tagsieve.page_sections import Section, write_report

EXAMPLES = 20
"""Queries that the page shows."""

SHOWN_CHARS = 300
"""Of the text of such a query."""

COMPARED = "compared"
"""Name of the stored frame that chunks of rows are read from."""

CHUNK_ROWS = 1024
"""Queries whose pairs of tags are compared at once."""


@dataclass(frozen=True)
class TagSources:
    """What a recipe's other steps know and do, for tags.

    `teacher`: the fingerprint of the recipe's tagger, or the file with the tags. `tagger`: that of
    the one to measure. `ask`, `ask_again`: have queries tagged that the tagger has not answered, or
    that lie in quarantine for any of some reasons; they count in the step's run. `names`: `raw_tag`
    and `tag` of the recipe's ontology. `vectors`: of distinct tags, float32 [n, d]. `share`,
    `seed`: of the queries that a training holds out.
    """

    teacher: str
    tagger: str
    ask: Callable[[Context, DataFrame], None]
    ask_again: Callable[[Context, DataFrame, Sequence[str]], None]
    names: Callable[[Context], DataFrame]
    vectors: Callable[[Context, pa.Array], Array]
    share: float = TRAINED_SHARE
    seed: int = 0


class TagsTask:
    """As a `Task`. The distinct tags of both sides and their vectors are held in memory (4 bytes x
    dimensions x tags), and of the queries those whose tags are compared at once."""

    unit = "query"
    writes: Sequence[str] = ("raw_tags", "quarantine", "tag_vectors")

    def __init__(self, config: EvaluateTagsConfig, sources: TagSources) -> None:
        self._config, self._sources = config, sources
        self._share = sources.share if config.share is None else config.share
        self._seed = sources.seed if config.seed is None else config.seed

    @property
    def reads(self) -> Sequence[str]:
        """The tables with the teacher's tags."""
        ontology = ("ontology",) if self._config.tags == "normalised" else ()
        return ("samples", "raw_tags", *ontology)

    def check(self, ray_config: RayConfig) -> None:  # noqa: ARG002
        """Refuse a tagger that is its own teacher, and a file that is not there. Raises
        UsageError."""
        if self._config.tags_file is not None:
            check_file("evaluate.tags_file", self._config.tags_file)
        if self._sources.tagger == self._sources.teacher:
            raise UsageError(
                "evaluate.engine: is the tagger of tag, so it would be its own teacher; name "
                "another one, or set evaluate.tags_file"
            )

    def ask(self, context: Context) -> None:
        """Have those queries tagged that are held out and that the tagger has not answered."""
        self._gold = self._held(context, self._all_gold(context))
        self._sources.ask(context, self._gold.select("query_id", "text"))

    def ask_again(self, context: Context, reasons: Sequence[str]) -> None:
        """Have those of the teacher's queries tagged, held out or not, that lie in quarantine for
        any of `reasons` (none: for all)."""
        rows = self._all_gold(context)
        self._gold = self._held(context, rows)
        self._sources.ask_again(context, rows.select("query_id", "text"), reasons)

    def tell(self, context: Context) -> None:
        """Print and write how well the tagger's answers match."""
        config = self._config
        compared = context.stored(COMPARED, self._compared(context))
        rows = by_query(compared, self._near(context, compared))
        figures = self._figures(rows, self._gold.count())
        context.run.metrics |= _metrics(figures)
        sections = _sections(figures, config.similarity)
        write_report(context, "evaluate.path", config.name, config.path, figures, sections)

    def _all_gold(self, context: Context) -> DataFrame:
        """The teacher's tags of all queries."""
        config, sources = self._config, self._sources
        if config.tags_file is not None:
            return queries_of_file(context, "evaluate.tags_file", config.tags_file)
        names = sources.names(context) if config.tags == "normalised" else None
        return tagged_queries(context, sources.teacher, names)

    def _held(self, context: Context, rows: DataFrame) -> DataFrame:
        """`query_id`, `text` and `gold` (as tags are compared) of the queries that are held out.
        Raises RunError where there is none."""
        rows = rows.where(held_out(F.col("query_id"), self._share, self._seed))
        tags = folded()("tags.tag").alias("gold")
        with context.console.spark_progress(context.engines.spark, "evaluate: held-out queries"):
            stored = context.stored("held-out", rows.select("query_id", "text", tags))
        if stored.isEmpty():
            raise RunError(
                f"evaluate.share={self._share}: no query that has tags of {self._sources.teacher} "
                "is held out; run the step tag first, or set evaluate.share higher"
            )
        return stored

    def _compared(self, context: Context) -> DataFrame:
        """`query_id`, `text`, `gold`, `predicted` and `failed` (it lies in quarantine, so that
        nothing is predicted) of the queries that the tagger was asked about."""
        tagger = self._sources.tagger
        answers = context.lake.read(context.engines.spark, "raw_tags")
        answers = answers.where(F.col("tagger") == tagger)
        answers = answers.select("query_id", F.col("tags.tag").alias("tags"))
        failed = quarantined(context, tagger, "query_id").withColumn("lies", F.lit(True))
        rows = self._gold.join(answers, "query_id", "left").join(failed, "query_id", "left")
        asked = rows.where(F.col("tags").isNotNull() | F.col("lies"))
        predicted = folded()("tags").alias("predicted")
        return asked.select(
            "query_id", "text", "gold", predicted, F.col("tags").isNull().alias("failed")
        )

    def _near(self, context: Context, compared: DataFrame) -> DataFrame:
        """`FOUND` of each query."""
        tag = F.explode(F.array_union("predicted", "gold")).alias("tag")
        tags = compared.select(tag).distinct().orderBy("tag").toArrow()["tag"].combine_chunks()
        vectors = self._sources.vectors(context, tags) if len(tags) else np.zeros((0, 1))
        parts = Parts(context, "near-tags", FOUND)
        chunks = read_chunks(context.lake.work_uri(context.run.run_id, COMPARED), CHUNK_ROWS)
        for found in near_tags(chunks, tags, vectors, self._config.similarity):
            parts.add(found)
        return parts.frame()

    def _figures(self, rows: DataFrame, held: int) -> dict[str, Any]:
        measures = measures_of(rows)
        return {
            "tagger": self._sources.tagger,
            "teacher": self._sources.teacher,
            "tags": self._config.tags,
            **measures,
            "not_asked": held - measures["queries"],
            "examples": _examples(rows),
        }


def _examples(rows: DataFrame) -> list[dict[str, Any]]:
    """The answered queries on which the two differ most."""
    order = ("fuzzy_f1", "exact_f1", F.desc(F.col("given") + F.col("wanted")), "query_id")
    worst = rows.where(~F.col("failed") & (F.col("fuzzy_f1") < 1)).orderBy(*order).limit(EXAMPLES)
    shown = F.substring("text", 1, SHOWN_CHARS).alias("query")
    named = (F.col("gold").alias("teacher_tags"), F.col("predicted").alias("tagger_tags"))
    columns = ("query_id", shown, *named, "exact_f1", "fuzzy_f1")
    return [row.asDict() for row in worst.select(*columns).collect()]


def _metrics(figures: Mapping[str, Any]) -> dict[str, float]:
    """`MEASURE_WAY` of each measure that there is."""
    return {
        f"{measure}_{way}": value
        for way in WAYS
        for measure, value in figures[way].items()
        if value is not None
    }


def _sections(figures: Mapping[str, Any], similarity: float) -> list[Section]:
    measures = [
        [
            way,
            figures["queries"],
            *(figures[way][name] for name in ("precision", "recall", "f1", "macro_f1")),
            figures["tags_per_query"],
            figures["teacher_tags_per_query"],
        ]
        for way in WAYS
    ]
    told = (
        f"{figures['tagger']} against {figures['teacher']} ({figures['tags']} tags); fuzzy: a "
        f"cosine similarity above {similarity:g} with any tag of the other side."
    )
    if figures["in_quarantine"]:
        told += (
            f" Of {figures['in_quarantine']:,} queries the answer lies in quarantine: no tag is "
            "right there; `tagsieve replay RECIPE --step evaluate` asks again."
        )
    if figures["not_asked"]:
        told += f" {figures['not_asked']:,} queries were not asked yet, and are left out."
    examples = [
        [row["query"], *(", ".join(row[side]) for side in ("teacher_tags", "tagger_tags")),
         row["exact_f1"], row["fuzzy_f1"]]
        for row in figures["examples"]
    ]  # fmt: skip
    return [
        Section(
            "Tags of queries held out",
            told,
            ["match", "queries", "precision", "recall", "F1", "macro F1", "tags per query",
             "teacher's tags per query"],
            measures,
        ),
        Section(
            "Queries on which the two differ most",
            "By fuzzy match, then by exact match.",
            ["query", "teacher's tags", "tagger's tags", "exact F1", "fuzzy F1"],
            examples,
            page_only=True,
        ),
    ]  # fmt: skip
