"""Winning scores, win rates and the biases of judges, from the scores of pairs in both orders.

Everywhere `scores` is float64 [n, 4]: of each question the scores of A and B with A shown first,
then of A and B with B shown first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Array = np.ndarray[Any, np.dtype[Any]]

RESAMPLES = 10_000


@dataclass(frozen=True)
class Tally:
    """How often A wins, ties and loses."""

    wins: int
    ties: int
    losses: int

    @classmethod
    def of(cls, outcomes: Array) -> Tally:
        """Of outcomes 1, 0 and -1."""
        return cls(*(int((outcomes == value).sum()) for value in (1, 0, -1)))

    @property
    def total(self) -> int:
        """Outcomes."""
        return self.wins + self.ties + self.losses

    @property
    def score(self) -> float:
        """(wins - losses) / total + 1: above 1, A is the better one (Longest, section 4.1; TACOS,
        section IV)."""
        return (self.wins - self.losses) / self.total + 1


def by_order(scores: Array) -> tuple[Array, Array]:
    """Outcomes of A, 1, 0 or -1, int64 [n]: where A was shown first, and where B was."""
    first, second = (np.sign(scores[:, k] - scores[:, k + 1]).astype(np.int64) for k in (0, 2))
    return first, second


def both_pass(scores: Array) -> Array:
    """Outcomes of A, int64 [n]: a win or a loss holds in both orders, all else is a tie (Longest,
    section 4.1: the winning score)."""
    first, second = by_order(scores)
    return np.where(first == second, first, 0)


def each_order(scores: Array) -> Array:
    """Outcomes of A, int64 [2 n]: those of both orders, each for itself (TACOS: the win rate)."""
    return np.concatenate(by_order(scores))


def interval(outcomes: Array, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """A bootstrap confidence interval of the score of outcomes of questions, int64 [n] or [n, k]:
    percentiles of resampled questions, whose k outcomes stay together."""
    of_questions = outcomes.reshape(len(outcomes), -1).mean(axis=1)
    found = stats.bootstrap(
        (of_questions,), np.mean, n_resamples=RESAMPLES, confidence_level=level,
        method="percentile", batch=100, rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = found.confidence_interval
    return float(low) + 1, float(high) + 1


@dataclass(frozen=True)
class PositionBias:
    """How far a judge goes by the place of an answer.

    `changed`: share of questions whose outcome is another one when the answers change places;
    `flipped`: of those in which the winner then loses; `first_wins`, `second_wins`: shares of
    judgements in which the answer shown first, or second, wins.
    """

    changed: float
    flipped: float
    first_wins: float
    second_wins: float

    @property
    def advantage(self) -> float:
        """How much more often the first place wins."""
        return self.first_wins - self.second_wins

    @classmethod
    def of(cls, counts: Mapping[tuple[int, int], int]) -> PositionBias:
        """Of how many questions have these outcomes of A, where A was shown first, and where B
        was."""
        total = sum(counts.values())

        def share(weight: Callable[[int, int], float]) -> float:
            return sum(weight(one, other) * n for (one, other), n in counts.items()) / total

        return cls(
            changed=share(lambda one, other: one != other),
            flipped=share(lambda one, other: one * other == -1),
            first_wins=share(lambda one, other: ((one == 1) + (other == -1)) / 2),
            second_wins=share(lambda one, other: ((one == -1) + (other == 1)) / 2),
        )

    def told(self) -> str:
        """All of it for a person."""
        return (
            f"the first place wins {self.first_wins:.1%}, the second {self.second_wins:.1%}; "
            f"{self.changed:.1%} of outcomes change when the places do, {self.flipped:.1%} turn "
            "around"
        )


def position_bias(scores: Array) -> PositionBias:
    """Of a judge, by all its judgements."""
    first, second = by_order(scores)
    return PositionBias.of(Counter(zip(first.tolist(), second.tolist(), strict=True)))


@dataclass(frozen=True)
class LengthBias:
    """How far outcomes go with the lengths of answers.

    `correlation`: Spearman's, of the outcome and the logarithm of A's length to B's (nan where one
    of them is all the same); `decided`: questions with a winner and answers of different lengths;
    `longer_wins`: the share of these in which the longer answer wins.
    """

    correlation: float
    longer_wins: float
    decided: int


def length_bias(outcomes: Array, lengths: Array) -> LengthBias:
    """`outcomes` of A, int64 [n]; `lengths` of A's and B's answers in any unit, [n, 2]."""
    ratio = np.log((lengths[:, 0] + 1.0) / (lengths[:, 1] + 1.0))
    varied = len(set(outcomes.tolist())) > 1 and len(set(ratio.tolist())) > 1
    correlation = float(stats.spearmanr(outcomes, ratio).statistic) if varied else float("nan")
    decided = (outcomes != 0) & (ratio != 0)
    agree = np.sign(ratio[decided]) == outcomes[decided]
    longer = float(agree.mean()) if decided.any() else float("nan")
    return LengthBias(correlation, longer, int(decided.sum()))


@dataclass(frozen=True)
class LengthBin:
    """The questions whose ratio of A's length to B's is from `low` to `high`, and A's score in
    them."""

    low: float
    high: float
    questions: int
    score: float


def by_length(outcomes: Array, lengths: Array, bins: int = 5) -> list[LengthBin]:
    """The score against the difference of lengths: questions in the order of the ratio of lengths,
    in as many bins of as many questions. Reads as `length_bias`."""
    ratio = (lengths[:, 0] + 1.0) / (lengths[:, 1] + 1.0)
    order = np.argsort(ratio, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [
        LengthBin(
            float(ratio[part[0]]),
            float(ratio[part[-1]]),
            len(part),
            float(outcomes[part].mean()) + 1,
        )
        for part in parts
    ]


@dataclass(frozen=True)
class Agreement:
    """Of two judges over the same questions: the share of equal outcomes, and Cohen's kappa (nan
    where both always say the same one thing)."""

    raw: float
    kappa: float


def agreement(one: Array, other: Array) -> Agreement:
    """Of outcomes of two judges, int64 [n] each."""
    from sklearn.metrics import cohen_kappa_score

    raw = float((one == other).mean())
    same = len(set(one.tolist()) | set(other.tolist())) < 2
    return Agreement(raw, float("nan") if same else float(cohen_kappa_score(one, other)))
