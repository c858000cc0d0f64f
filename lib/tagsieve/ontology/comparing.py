"""Compares the tagger of an ontology version with another one, for the step analyze."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Self

import pyarrow as pa
from deltalake import QueryBuilder
from pyspark.sql import functions as F

from tagsieve.console import Console
from tagsieve.engines.context import Context
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.ontology.agreement import agreement, answer_counts, answers_of, only_tags, query_tags
from tagsieve.ontology.config import RuleConfig

TOP_TAGS = 10
"""How many tags that only one tagger gives are shown of each."""

FIGURES = {
    "queries": "queries both answered",
    "queries_this_only": "queries only this one answered",
    "queries_other_only": "queries only the other answered",
    "tags_per_query": "tags per query of this one",
    "other_tags_per_query": "tags per query of the other",
    "equal": "share of queries with equal tags",
    "jaccard": "mean Jaccard",
    "precision": "precision",
    "recall": "recall",
    "f1": "micro F1",
    "macro_f1": "macro F1",
}
"""Columns of `tagger_agreement` as a person reads them."""


@dataclass(frozen=True)
class Comparison:
    """Two taggers of one lake, the tags of `other` taken for right, under one rule step."""

    tagger: str
    other: str
    rule: RuleConfig

    @classmethod
    def find(cls, lake: Lake, version: str, given: str, raw_tags: int) -> Self:
        """An ontology version's tagger and the one that `given` names or begins.

        `raw_tags`: the version of that table to look in. Raises RunError unless `given` leads to
        exactly one tagger, and another one.
        """
        (made,) = _versions(lake, version)
        there = _taggers(lake, raw_tags)
        found = {given} & there or {name for name in there if name.startswith(given)}
        setting = f"analyze.compare_tagger={given}"
        if not found:
            raise RunError(
                f"{setting}: no tagger in raw_tags of lake {lake.root} starts with it; there: "
                f"{_listed(there)}"
            )
        if len(found) > 1:
            raise RunError(
                f"{setting}: several taggers start with it: {_listed(found)}; write more of the "
                "one that is meant"
            )
        (other,) = found
        if other == made["tagger"]:
            raise RunError(
                f"{setting}: that is the recipe's own tagger, {other}; the others in lake "
                f"{lake.root}: {_listed(there - found)}"
            )
        rule = RuleConfig.model_validate(json.loads(made["config"])["rule"])
        return cls(made["tagger"], other, rule)

    def made_by(self, lake: Lake) -> str | None:
        """The run whose figures of these two taggers are in the lake; None: there are none."""
        rows = lake.arrow("tagger_agreement", ["run_id"], _equal(self._pair)).to_pylist()
        return rows[0]["run_id"] if rows else None

    def write(self, context: Context) -> None:
        """Put `tagger_only_tags` and `tagger_agreement` of the two in place of what was there.

        The row of figures is written last: a run without it was cut off. Raises RunError when no
        query was answered by both.
        """
        run, lake = context.run, context.lake
        raw_tags = context.pinned("raw_tags")
        answers = answers_of(raw_tags, self.tagger, self.other).cache()
        counts = answer_counts(answers).first()
        assert counts is not None
        if not counts["both"]:
            raise RunError(
                f"analyze.compare_tagger={self.other}: no query was answered by both: "
                f"{counts['this']:,} by {self.tagger}, {counts['other']:,} by that one; run the "
                "step tag with both taggers' settings on the same data first"
            )
        tags = query_tags(answers, self.rule).cache()
        figures = agreement(tags).withColumns(
            {
                "queries_this_only": F.lit(counts["this"]).cast("long"),
                "queries_other_only": F.lit(counts["other"]).cast("long"),
                "run_id": F.lit(run.run_id),
            }
        )
        pair = {column: F.lit(value) for column, value in self._pair.items()}
        for name, frame in (("tagger_only_tags", only_tags(tags)), ("tagger_agreement", figures)):
            lake.replace(frame.withColumns(pair), name, self._pair)
        tags.unpersist()
        answers.unpersist()
        (row,) = lake.arrow("tagger_agreement", filters=_equal(self._pair)).to_pylist()
        run.metrics["agreement_f1"] = row["f1"]
        run.metrics["agreement_queries"] = float(row["queries"])
        run.wrote("tagger_only_tags", "tagger_agreement")

    def show(self, lake: Lake, console: Console) -> None:
        """Print the figures, and the tags most often given by one of the two only."""
        (row,) = lake.arrow("tagger_agreement", filters=_equal(self._pair)).to_pylist()
        console.line(f"this:   {self.tagger}")
        console.line(f"other:  {self.other} (its tags are taken for right)")
        figures = [(label, row[column]) for column, label in FIGURES.items()]
        console.table("agreement of two taggers", ["figure", "value"], figures)
        console.table(
            "tags of one of the two only: in how many queries, and in how many both give it",
            ["only this one", "queries", "both", "only the other", "queries", "both"],
            [
                [*mine.values(), *others.values()]
                for mine, others in zip_longest(
                    _top_tags(lake, row, "this"),
                    _top_tags(lake, row, "other"),
                    fillvalue={"tag": "", "queries": "", "shared": ""},
                )
            ],
        )

    @property
    def _pair(self) -> dict[str, str]:
        return {"tagger": self.tagger, "other": self.other}


def agreements(lake: Lake, version: str) -> list[dict[str, Any]]:
    """The rows of `tagger_agreement` of an ontology version's tagger; `only_this` and `only_other`
    are added, the tags (`tag`, `queries`, `shared`) most often given by one of the two only."""
    return [
        row | {f"only_{side}": _top_tags(lake, row, side) for side in ("this", "other")}
        for made in _versions(lake, version)
        for row in lake.arrow("tagger_agreement", filters=_equal({"tagger": made["tagger"]}))
        .sort_by("other")
        .to_pylist()
    ]


def _top_tags(lake: Lake, pair: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
    """`tag`, `queries`, `shared` of the tags that most often only one side gives."""
    table = lake.delta("tagger_only_tags")
    if table is None:
        return []
    wanted = {"tagger": pair["tagger"], "other": pair["other"], "side": side}
    where = " AND ".join(
        "{} = '{}'".format(column, value.replace("'", "''")) for column, value in wanted.items()
    )
    query = (
        f"SELECT tag, queries, shared FROM tagger_only_tags WHERE {where} "
        f"ORDER BY queries DESC, tag LIMIT {TOP_TAGS}"
    )
    found = QueryBuilder().register("tagger_only_tags", table).execute(query).read_all()
    rows: list[dict[str, Any]] = pa.table(found).to_pylist()
    return rows


def _versions(lake: Lake, version: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.arrow(
        "ontology_versions", ["tagger", "config"], _equal({"version": version})
    ).to_pylist()
    return rows


def _taggers(lake: Lake, raw_tags: int) -> set[str]:
    """The taggers in version `raw_tags` of that table (-1: not there yet), from its log alone."""
    table = lake.delta("raw_tags", raw_tags) if raw_tags >= 0 else None
    return set() if table is None else {row["tagger"] for row in table.partitions()}


def _listed(names: Set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _equal(values: Mapping[str, str]) -> list[tuple[str, str, Any]]:
    return [(column, "=", value) for column, value in values.items()]
