"""Winning scores against the papers' figures and the figures of real logs."""

import gzip
import json
import math

import numpy as np
import pytest
from scipy.stats import norm

from tagsieve.judging.winning import (
    Tally,
    agreement,
    both_pass,
    by_length,
    each_order,
    interval,
    length_bias,
    position_bias,
)

TABLE_IV = {
    (1310, 170, 580): 1.354,
    (1345, 169, 546): 1.388,
    (1175, 482, 403): 1.375,
    (1586, 275, 199): 1.673,
}
"""TACOS, table IV: wins, ties and losses in both orders, and the win rate."""

LONGEST = """
    1.0194 0.8913 1.1913 1.0961 1.4505 1.4631 1.2058 1.0398 1.3058 1.1573 1.4718 1.3563
    1.0748 1.0107 1.1641 1.0893 1.1942 1.1398 0.9078 1.1068 0.7796 0.9777 1.1379 1.2806
    0.8786 0.9845 1.0680 1.1583 1.1495 1.2466
    1.5311 1.4146 1.3796 1.2883 1.1476 1.0592 1.1981 1.2854 1.2942 1.1350
    0.1544 0.1883 0.2126
    0.9650 0.8631 0.4612 1.2029 1.0641 0.6495 0.9680 0.9379 0.8049 0.8602 1.0583 0.7544
    0.9456 1.0621 0.8029
"""
"""All winning scores of "Rethinking Data Selection", tables 1, 2, 4 and 6: of 1,030 questions."""


@pytest.fixture(scope="module")
def logs():
    from conftest import SHARED_DATA

    path = SHARED_DATA / "judge" / "pairwise_scores.json.gz"
    if not path.exists():
        pytest.skip("the shared data folder beside the checkout is not there")
    with gzip.open(path, "rt") as stream:
        return json.load(stream)


@pytest.mark.parametrize(("counts", "rate"), TABLE_IV.items())
def test_win_rates_are_those_of_tacos_table_iv(counts, rate):
    assert round(Tally(*counts).score, 3) == rate


def test_winning_scores_of_longest_are_those_of_whole_questions():
    scores = LONGEST.split()
    assert len(scores) == 58
    for told in scores:
        net = round((float(told) - 1) * 1030)
        wins, losses = max(net, 0), max(-net, 0)
        assert f"{Tally(wins, 1030 - wins - losses, losses).score:.4f}" == told


def rows_of(judge):
    sets = {name: np.array(rows, dtype=float) for name, rows in judge["rows"].items()}
    return sets, np.concatenate(list(sets.values()))


@pytest.mark.parametrize("judge", ["gpt4", "gpt3.5"])
def test_winning_scores_of_real_logs_are_those_recorded(logs, judge):
    expected = logs["judges"][judge]["expected"]["both_pass"]
    sets, every = rows_of(logs["judges"][judge])
    tally = Tally.of(both_pass(every))
    assert [tally.wins, tally.ties, tally.losses] == expected["total"]
    assert round(tally.score, 4) == expected["winning_score"]
    for name, rows in sets.items():
        told = Tally.of(both_pass(rows))
        assert [told.wins, told.ties, told.losses] == expected["by_set"][name]
        assert round(told.score, 4) == expected["winning_score_by_set"][name]
    orders = logs["judges"][judge]["expected"]["per_order (2 votes a question)"]
    votes = Tally.of(each_order(every))
    assert [votes.wins, votes.ties, votes.losses] == orders["total"]
    low, high = interval(both_pass(every))
    assert low < tally.score < high
    spread = both_pass(every).std() / math.sqrt(len(every)) * norm.ppf(0.975)
    assert (high - low) / 2 == pytest.approx(spread, rel=0.05)


def test_agreement_of_two_real_judges(logs):
    one, other = (both_pass(rows_of(logs["judges"][judge])[1]) for judge in ("gpt4", "gpt3.5"))
    found = agreement(one, other)
    # Cohen's kappa: agreement beyond what the shares of outcomes make by chance.
    chance = sum((one == value).mean() * (other == value).mean() for value in (1, 0, -1))
    assert found.kappa == pytest.approx((found.raw - chance) / (1 - chance))
    assert found.raw == (one == other).mean()
    assert math.isnan(agreement(np.ones(3), np.ones(3)).kappa)


def test_biases_of_a_judge_that_has_them_are_found():
    rng = np.random.default_rng(3)
    n, place, long = 20_000, 0.4, 0.7
    truth, ratio = rng.normal(size=n), rng.normal(size=n)
    better = truth + long * ratio
    rows = np.zeros((n, 4))
    rows[:, 0], rows[:, 2] = better + place, better - place
    bias = position_bias(rows)
    spread = math.hypot(1, long)
    flipped = 2 * norm.cdf(place / spread) - 1
    assert bias.flipped == bias.changed == pytest.approx(flipped, abs=0.01)
    assert bias.advantage == pytest.approx(flipped, abs=0.01)
    lengths = np.stack([np.exp(ratio) * 1e4, np.full(n, 1e4)], axis=1)
    found = length_bias(both_pass(rows), lengths)
    assert found.longer_wins > 0.65
    bins = by_length(both_pass(rows), lengths, 4)
    assert [each.questions for each in bins] == [5000] * 4
    assert bins[0].score < 0.7 < 1.3 < bins[-1].score
    assert sum(each.score for each in bins) / 4 == pytest.approx(Tally.of(both_pass(rows)).score)
    for each in bins:
        inside = (np.exp(ratio) >= each.low * 0.999) & (np.exp(ratio) <= each.high * 1.001)
        near = both_pass(rows)[inside].mean() + 1
        assert each.score == pytest.approx(near, abs=0.05)
    unbiased = length_bias(np.sign(truth).astype(int), lengths)
    assert unbiased.longer_wins == pytest.approx(0.5, abs=0.02)
    assert abs(unbiased.correlation) < 0.03


def test_orders_stay_together_in_an_interval():
    rows = np.array([[9, 1, 9, 1], [1, 9, 1, 9]] * 50, dtype=float)
    assert Tally.of(each_order(rows)) == Tally(100, 0, 100)
    assert interval(both_pass(rows)) == interval(each_order(rows).reshape(2, -1).T)
