"""The quality of tags, judged by a model and by people (InsTag, section 3.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from tagsieve.engines.context import Context
from tagsieve.judging.asking import Asker
from tagsieve.judging.cases import Case, CaseKind, TagVectors, all_right, draw_cases, fields_of
from tagsieve.judging.config import JudgeTagsConfig
from tagsieve.judging.sheets import majority, read_sheet, write_sheet
from tagsieve.judging.work import Wanted, judgement_id, scores_of, wanted_in_memory
from tagsieve.page_sections import Section, write_report

KINDS: tuple[CaseKind, ...] = ("precision", "consistency")

WORST = 10
"""Tags that are shown as most often wrong."""


@dataclass(frozen=True)
class TagSources:
    """What a recipe's other steps made, for tags: the ontology version, and the vectors of tags
    that controls are made by."""

    version: str
    vectors: TagVectors


def tag_askers(config: JudgeTagsConfig) -> dict[CaseKind, Asker]:
    """The judge of each kind of case. Raises UsageError when a prompt cannot be used."""
    prompts = {"precision": config.precision_prompt, "consistency": config.consistency_prompt}
    return {kind: Asker.of(kind, config.engine, prompts[kind], "judge.engine") for kind in KINDS}


class TagsTask:
    """As a `Task`. The cases are held in memory, and what `draw_cases` says."""

    reads: Sequence[str] = ("samples", "tags")
    identity = None

    def __init__(self, config: JudgeTagsConfig, sources: TagSources) -> None:
        self._config, self._sources = config, sources
        self._judges = tag_askers(config)

    @property
    def askers(self) -> list[Asker]:
        """One for each kind of case."""
        return list(self._judges.values())

    def wanted(self, context: Context) -> list[Wanted]:
        """All cases."""
        with context.console.spark_progress(context.engines.spark, "judge: drawing cases"):
            sources = self._sources
            self._cases = draw_cases(context, self._config, sources.version, sources.vectors)
        return [
            wanted_in_memory(
                context,
                asker,
                [_question(asker.judge, case) for case in self._cases if case.kind == kind],
            )
            for kind, asker in self._judges.items()
        ]

    def tell(self, context: Context) -> None:
        """Print and write the shares of right cases; write sheets for people, or read them."""
        config = self._config
        people = self._people(context)
        figures = self._figures(context, people)
        sections = _sections(figures)
        write_report(context, "judge.path", config.name, config.path, figures, sections)

    def _people(self, context: Context) -> list[dict[str, bool]]:
        """What people said, of those who have filled in anything."""
        config = self._config
        files, folder = fsspec.core.url_to_fs(config.path)
        cases = self._human_cases()
        found = []
        for number in range(1, config.humans + 1):
            path = f"{folder.rstrip('/')}/{config.name}-sheet-{number}.csv"
            if files.exists(path):
                answers = read_sheet(files, path, cases)
                found += [answers] if answers else []
            else:
                write_sheet(files, path, cases)
                context.console.line(f"sheet    {path}: fill in the last column, and run again")
        return found

    def _human_cases(self) -> list[Case]:
        """The first cases and controls of each kind, mixed."""
        most = self._config.human_cases
        chosen = [
            case
            for kind in KINDS
            for control in (False, True)
            for case in [c for c in self._cases if (c.kind, c.control) == (kind, control)][:most]
        ]
        return sorted(chosen, key=lambda case: (case.kind != "precision", case.number))

    def _figures(self, context: Context, people: Sequence[Mapping[str, bool]]) -> dict[str, Any]:
        decided = majority(people, self._human_cases())
        kinds = {}
        for kind, asker in self._judges.items():
            scores = scores_of(context, asker.judge)
            cases = [case for case in self._cases if case.kind == kind]
            judged = {
                case.number: all_right(scores[key])
                for case in cases
                if (key := judgement_id(asker.judge, *case.parts)) in scores
            }
            numbers = [case.number for case in cases if case.number in decided]
            kinds[kind] = {
                "judge": asker.judge,
                "original": _share([c for c in cases if not c.control], judged),
                "counterfactual": _share([c for c in cases if c.control], judged),
                "people_original": _share([c for c in cases if not c.control], decided),
                "people_counterfactual": _share([c for c in cases if c.control], decided),
                **_agreement(numbers, people, decided, judged),
                "worst": _worst(asker.judge, kind, cases, scores),
            }
        return {"ontology_version": self._sources.version, "people": len(people), "kinds": kinds}


def _question(judge: str, case: Case) -> dict[str, Any]:
    return {
        "judgement_id": judgement_id(judge, *case.parts),
        "group_id": case.key,
        "criterion": "counterfactual" if case.control else "original",
        "ids": list(case.ids),
        "fields": fields_of(case),
    }


def _share(cases: Sequence[Case], right: Mapping[str, bool]) -> dict[str, Any]:
    """How many cases there are, how many are judged, and which share of these is right."""
    found = [right[case.number] for case in cases if case.number in right]
    share = sum(found) / len(found) if found else None
    return {"cases": len(cases), "judged": len(found), "right": share}


def _agreement(
    numbers: Sequence[str],
    people: Sequence[Mapping[str, bool]],
    decided: Mapping[str, bool],
    judged: Mapping[str, bool],
) -> dict[str, float | None]:
    """Fleiss' kappa of people over cases, and Cohen's of their majority and the judge; None where
    there is nothing to compare, or all say the same."""
    from sklearn.metrics import cohen_kappa_score
    from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

    fleiss = cohen = None
    table = [[int(person[number]) for person in people] for number in numbers]
    if len(people) > 1 and len({value for row in table for value in row}) > 1:
        fleiss = float(fleiss_kappa(aggregate_raters(table)[0]))
    both = [(decided[number], judged[number]) for number in numbers if number in judged]
    if len({value for pair in both for value in pair}) > 1:
        cohen = float(cohen_kappa_score(*zip(*both, strict=True)))
    return {"fleiss_kappa": fleiss, "cohen_kappa": cohen}


def _worst(
    judge: str, kind: CaseKind, cases: Sequence[Case], scores: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """The tags with most errors in cases as they were drawn, and in how many places they were."""
    wrong: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for case in cases:
        found = scores.get(judgement_id(judge, *case.parts))
        if case.control or found is None:
            continue
        tags = case.ids if kind == "precision" else (case.key,) * len(found)
        seen.update(tags)
        wrong.update(tag for tag, score in zip(tags, found, strict=True) if score == 0)
    order = sorted(wrong, key=lambda tag: (-wrong[tag], tag))
    return [{"tag": tag, "wrong": wrong[tag], "of": seen[tag]} for tag in order[:WORST]]


def _sections(figures: Mapping[str, Any]) -> list[Section]:
    rows = []
    for kind, told in figures["kinds"].items():
        people = [told[name]["right"] for name in ("people_original", "people_counterfactual")]
        rows.append(
            [
                kind,
                told["original"]["judged"],
                _percent(told["original"]["right"]),
                told["counterfactual"]["judged"],
                _percent(told["counterfactual"]["right"]),
                told["people_original"]["judged"] + told["people_counterfactual"]["judged"],
                *map(_percent, people),
                told["fleiss_kappa"],
                told["cohen_kappa"],
            ]
        )
    unjudged = sum(
        told[name]["cases"] - told[name]["judged"]
        for told in figures["kinds"].values()
        for name in ("original", "counterfactual")
    )
    sections = [
        Section(
            f"Quality of the tags of {figures['ontology_version']}",
            "right: cases in which nothing is marked as wrong; of controls, in which something was "
            "put in that is wrong, a good judge passes few. Fleiss: of "
            f"{figures['people']} people; Cohen: of their majority and the judge."
            + (f" {unjudged:,} cases lack a judgement." if unjudged else ""),
            ["", "cases", "right", "controls", "right", "people's cases", "right", "controls right",
             "Fleiss", "Cohen"],
            rows,
        )
    ]  # fmt: skip
    for kind, told in figures["kinds"].items():
        if told["worst"]:
            sections.append(
                Section(
                    f"{kind.capitalize()}: tags most often wrong",
                    "",
                    ["tag", "wrong", "of"],
                    [[each["tag"], each["wrong"], each["of"]] for each in told["worst"]],
                )
            )
    return sections


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"
