"""Models' answers to test sets, two by two in both orders: winning scores and win rates (Longest,
section 4.1; TACOS, section IV), and how far the judges can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from pyspark.sql import DataFrame

from tagsieve.engines.context import Context
from tagsieve.judging.asking import Asker
from tagsieve.judging.charts import outcome_bars
from tagsieve.judging.config import JudgeAnswersConfig
from tagsieve.judging.winning import (
    Array,
    Tally,
    agreement,
    both_pass,
    by_length,
    each_order,
    interval,
    length_bias,
    position_bias,
)
from tagsieve.judging.work import Wanted, answer_id, judgement_id, scores_of, wanted_in_memory
from tagsieve.page_sections import Section, write_report
from tagsieve.test_sets.reading import read_answers

ALL = "all"
"""The name of all test sets together."""


@dataclass(frozen=True)
class _Answer:
    """An answer and its id."""

    key: str
    text: str


class AnswersTask:
    """As a `Task`. The test sets, the answers and the scores are held in memory."""

    reads: Sequence[str] = ()
    identity = None

    def __init__(self, config: JudgeAnswersConfig) -> None:
        self._config = config
        self._asked = read_answers(config.test_sets, config.answers).to_pylist()
        for row in self._asked:
            question = row["text"]
            row["answers"] = [_Answer(answer_id(question, text), text) for text in row["answers"]]
        self._judges = {
            name: Asker.of(
                "pair", each.engine, each.prompt, f"judge.judges.{name}.engine", each.scale
            )
            for name, each in config.judges.items()
        }

    @property
    def askers(self) -> list[Asker]:
        """The judges; one that has two names is asked once."""
        return list({asker.judge: asker for asker in self._judges.values()}.values())

    def wanted(self, context: Context) -> list[Wanted]:
        """The first model's answer and each other one's, in both orders; two equal ones once."""
        return [
            wanted_in_memory(context, asker, self._questions(asker.judge)) for asker in self.askers
        ]

    def tell(self, context: Context) -> None:
        """Print and write the scores, by test set and over all."""
        figures = self.figures(context)
        config = self._config
        sections = _sections(figures)
        write_report(context, "judge.path", config.name, config.path, figures, sections)

    def figures(self, context: Context) -> dict[str, Any]:
        """All figures, as plain values."""
        names = list(self._config.answers)
        scores = {judge: scores_of(context, asker.judge) for judge, asker in self._judges.items()}
        results = []
        agreements = []
        for number, opponent in enumerate(names[1:], start=1):
            outcomes = {}
            for judge, asker in self._judges.items():
                of_judge = scores[judge]
                found = [self._scores(row, number, asker.judge, of_judge) for row in self._asked]
                told = {"judge": judge, "against": opponent}
                results += [told | each for each in self._by_test_set(found, number)]
                outcomes[judge] = found
            for one, other in combinations(self._judges, 2):
                told = {"judge": one, "other": other, "against": opponent}
                agreements.append(told | _agreement(outcomes[one], outcomes[other]))
        return {
            "model": names[0],
            "judges": {name: asker.judge for name, asker in self._judges.items()},
            "results": results,
            "agreement": agreements,
        }

    def preferences(self, context: Context) -> Iterator[dict[str, str]]:
        """`prompt`, `chosen` and `rejected` of each question and pair of answers of which all
        judges say, in both orders, that the same one is better."""
        scores = {judge: scores_of(context, judge) for judge in {a.judge for a in self.askers}}
        for row in self._asked:
            ours, *others = row["answers"]
            for number, theirs in enumerate(others, start=1):
                found = [self._scores(row, number, judge, of) for judge, of in scores.items()]
                outcomes = {None if s is None else int(both_pass(np.array([s]))[0]) for s in found}
                if outcomes == {1}:
                    yield {"prompt": row["text"], "chosen": ours.text, "rejected": theirs.text}
                if outcomes == {-1}:
                    yield {"prompt": row["text"], "chosen": theirs.text, "rejected": ours.text}

    def _questions(self, judge: str) -> Iterator[dict[str, Any]]:
        for row in self._asked:
            ours, *others = row["answers"]
            for theirs in others:
                for first, second in ((ours, theirs), (theirs, ours)):
                    fields = {"question": row["text"], "first": first.text, "second": second.text}
                    yield {
                        "judgement_id": judgement_id(judge, first.key, second.key),
                        "group_id": f"{row['test_set']} {row['question']}",
                        "criterion": "answers",
                        "ids": [first.key, second.key],
                        "fields": fields,
                    }

    def _scores(
        self, row: dict[str, Any], number: int, judge: str, scores: dict[str, list[float]]
    ) -> list[float] | None:
        """The scores of a question as `winning` has them; None where an order lacks."""
        ours, theirs = row["answers"][0], row["answers"][number]
        one = scores.get(judgement_id(judge, ours.key, theirs.key))
        other = scores.get(judgement_id(judge, theirs.key, ours.key))
        return None if one is None or other is None else [*one, *reversed(other)]

    def _by_test_set(
        self, scores: Sequence[list[float] | None], number: int
    ) -> Iterator[dict[str, Any]]:
        sets = [test_set.name for test_set in self._config.test_sets]
        for name in [*sets, *([ALL] if len(sets) > 1 else [])]:
            chosen = [n for n, row in enumerate(self._asked) if name in (ALL, row["test_set"])]
            judged = [n for n in chosen if scores[n] is not None]
            told = {"test_set": name, "questions": len(chosen), "judged": len(judged)}
            if not judged:
                yield told | dict.fromkeys(("both_pass", "each_order", "position", "length"))
                continue
            of_set = np.array([scores[n] for n in judged])
            lengths = np.array(
                [[len(self._asked[n]["answers"][k].text) for k in (0, number)] for n in judged]
            )
            yield told | self._figures(of_set, lengths)

    def _figures(self, scores: Array, lengths: Array) -> dict[str, Any]:
        config = self._config
        passed = both_pass(scores)
        of_order = each_order(scores)
        by_question = of_order.reshape(2, -1).T
        bias = position_bias(scores)
        return {
            "both_pass": _tally(passed, interval(passed, config.confidence, config.seed)),
            "each_order": _tally(of_order, interval(by_question, config.confidence, config.seed)),
            "position": asdict(bias) | {"advantage": bias.advantage},
            "length": asdict(length_bias(passed, lengths))
            | {"bins": [asdict(each) for each in by_length(passed, lengths)]},
        }


def preferences(context: Context, config: JudgeAnswersConfig) -> DataFrame:
    """What the judges prefer, for a preference training: `prompt`, `chosen`, `rejected`; held in
    memory, as the test sets are. Raises UsageError where the files cannot be read."""
    rows = list(AnswersTask(config).preferences(context))
    columns = "prompt string, chosen string, rejected string"
    return context.engines.spark.createDataFrame(
        [(row["prompt"], row["chosen"], row["rejected"]) for row in rows], columns
    )


def _tally(outcomes: Array, ends: tuple[float, float]) -> dict[str, float]:
    tally = Tally.of(outcomes)
    return asdict(tally) | {"score": tally.score, "low": ends[0], "high": ends[1]}


def _agreement(
    one: Sequence[list[float] | None], other: Sequence[list[float] | None]
) -> dict[str, Any]:
    """Of two judges, over the questions that both have judged."""
    both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    if not both:
        return {"questions": 0, "raw": None, "kappa": None}
    a, b = (both_pass(np.array(side)) for side in zip(*both, strict=True))
    return {"questions": len(both)} | asdict(agreement(a, b))


def _sections(figures: dict[str, Any]) -> list[Section]:
    """What is shown of the figures."""
    model, every = figures["model"], figures["results"]
    over_all = [r for r in every if r["test_set"] == ALL] or every
    unjudged = sum(r["questions"] - r["judged"] for r in over_all)
    results, whole = ([r for r in some if r["judged"]] for some in (every, over_all))
    keys = [[r["judge"], r["against"], r["test_set"]] for r in results]
    scores = [
        [*key, r["judged"], *(r["both_pass"][n] for n in ("wins", "ties", "losses")),
         r["both_pass"]["score"], _ends(r["both_pass"]), r["each_order"]["score"],
         _ends(r["each_order"])]
        for key, r in zip(keys, results, strict=True)
    ]  # fmt: skip
    biases = [
        [r["judge"], r["against"], *(r["position"][n] for n in ("first_wins", "second_wins",
         "changed", "flipped")), r["length"]["longer_wins"], r["length"]["correlation"]]
        for r in whole
    ]  # fmt: skip
    sections = [
        Section(
            f"{model} against others",
            "winning score: (wins - losses) / judged + 1, where a win or a loss holds in both "
            "orders; win rate: of both orders, each for itself; with bootstrap intervals."
            + (f" {unjudged:,} questions lack a judgement in some order." if unjudged else ""),
            ["judge", "against", "test set", "judged", "win", "tie", "loss", "winning score",
             "interval", "win rate", "its interval"],
            scores,
            outcome_bars([" · ".join(key) for key in keys], [r["both_pass"] for r in results]),
        ),
        Section(
            "Position and length",
            "first, second: share of judgements in which that place wins; changed: outcomes that "
            "are others when the places change, turned: of these a win that becomes a loss; "
            "longer wins: of decided questions; correlation: Spearman's, of the outcome with the "
            "ratio of lengths.",
            ["judge", "against", "first", "second", "changed", "turned", "longer wins",
             "correlation"],
            biases,
        ),
    ]  # fmt: skip
    bins = [
        [r["judge"], r["against"], f"{each['low']:.2f} to {each['high']:.2f}", each["questions"],
         each["score"]]
        for r in whole for each in r["length"]["bins"]
    ]  # fmt: skip
    sections.append(
        Section(
            "Winning score by length",
            f"ratio: characters of the answer of {model} to those of the other one; a fifth of the "
            "questions each.",
            ["judge", "against", "ratio", "questions", "winning score"],
            bins,
        )
    )
    if figures["agreement"]:
        rows = [[a[n] for n in ("judge", "other", "against", "questions", "raw", "kappa")]
                for a in figures["agreement"]]  # fmt: skip
        sections.append(
            Section(
                "Agreement of the judges",
                "raw: share of equal outcomes; kappa: Cohen's.",
                ["judge", "other", "against", "questions", "raw", "kappa"],
                rows,
            )
        )
    return sections


def _ends(tally: dict[str, float]) -> str:
    return f"{tally['low']:.2f} to {tally['high']:.2f}"
