"""Comparative scoring: both orders of every pair, each once, and only what is new."""

import json
from collections import Counter, defaultdict

import pytest

from handmade import put, recorded, rows_of
from parity.pairing import new_pairs as plain_pairs
from scored import conversation
from stub_judge import engine, judge_of, verdict
from tagsieve import records
from tagsieve.config import validate
from tagsieve.engines.compared import comparative_scores
from tagsieve.errors import RunError
from tagsieve.judging import PairSources, judge, pairing_name, replay, task_of
from tagsieve.judging.config import JudgePairsConfig

CLUSTERING = "tags-v1-k3-abc"
BIAS = 7


def config_of(endpoint, **settings):
    values = {"engine": engine(endpoint)} | settings
    return validate(JudgePairsConfig, values, "t")


def turns_of(n):
    return [("user", f"Question {n}"), ("assistant", " ".join([f"Answer {n}"] * (n % 5 + 1)))]


def text_of(n):
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in turns_of(n))


KEYS = {records.sample_id(turns_of(n)): n for n in range(200)}


def add(lake, groups, pool="p"):
    """Conversations, and the clusters they are in: cluster -> numbers."""
    rows = [(cluster, n) for cluster, numbers in groups.items() for n in numbers]
    put(lake, "samples", [conversation(turns_of(n), pool) for _, n in rows])
    put(
        lake,
        "clusters",
        [
            {
                "clustering": CLUSTERING,
                "sample_id": records.sample_id(turns_of(n)),
                "cluster": cluster,
            }
            for cluster, n in rows
        ],
    )


def judged(lake):
    """(first, second) -> scores, as shown; each once."""
    rows = lake.arrow("judgements").to_pylist()
    found = {tuple(KEYS[item["id"]] for item in row["items"]): row for row in rows}
    assert len(found) == len(rows)
    assert len({row["judgement_id"] for row in rows}) == len(rows)
    return {pair: [item["score"] for item in row["items"]] for pair, row in found.items()}


def run(lake, engines, config, run_id="r1", sources=None, function=judge, **limits):
    task = task_of(config, sources or PairSources(CLUSTERING))
    return recorded(lake, engines, "judge", run_id, function, task, *limits.values())


def test_every_conversation_is_judged_in_both_orders_with_its_scores(lake, engines, endpoint):
    groups = {0: range(7), 1: range(7, 17), 2: [17]}
    add(lake, groups)
    endpoint.reply = judge_of(BIAS)
    config = config_of(endpoint, rounds=2)
    line = run(lake, engines, config)
    found = judged(lake)
    ids = {str(g): [k for k, n in KEYS.items() if n in numbers] for g, numbers in groups.items()}
    pairs = {(KEYS[a], KEYS[b]) for _, _, a, b in plain_pairs(ids, set(), 2, 0)}
    assert set(found) == pairs | {(b, a) for a, b in pairs}
    for (first, second), scores in found.items():
        assert scores == list(verdict(text_of(first), text_of(second), BIAS))
    assert {n for pair in found for n in pair} == set(range(17))
    assert line.kept == line.input == len(found) == sum(endpoint.calls.values())
    assert line.metrics["unpaired"] == 1
    raw = rows_of(lake, "judgements")[0]
    assert json.loads(raw["raw"])["first"] == raw["items"][0]["score"]
    assert {raw["kind"], raw["criterion"]} == {"pair", "comparative"}

    again = run(lake, engines, config, "r2")
    assert again.known == again.input == len(found)
    assert sum(endpoint.calls.values()) == len(found)

    spark = engines.spark
    scores = comparative_scores(
        lake.read(spark, "pairs"), lake.read(spark, "judgements"), raw["judge"]
    ).collect()
    means = defaultdict(list)
    for pair, values in found.items():
        for n, value in zip(pair, values, strict=True):
            means[n].append(value)
    expected = {n: sum(values) / len(values) for n, values in means.items()}
    assert {KEYS[row["sample_id"]]: row["score"] for row in scores} == expected


def test_the_bias_of_the_judge_is_told(lake, engines, endpoint):
    add(lake, {0: range(60)})
    endpoint.reply = judge_of(30)
    line = run(lake, engines, config_of(endpoint))
    outcomes = Counter()
    for first, second in judged(lake):
        a, b = verdict(text_of(first), text_of(second), 30)
        outcomes[(a > b) - (a < b)] += 1
    advantage = (outcomes[1] - outcomes[-1]) / outcomes.total()
    assert line.metrics["first_place_advantage"] == pytest.approx(advantage)
    assert advantage > 0.3


def test_a_cluster_that_grows_has_only_its_new_rows_judged(lake, engines, endpoint):
    add(lake, {0: range(100), 1: range(100, 150)})
    endpoint.reply = judge_of(BIAS)
    config = config_of(endpoint)
    first = run(lake, engines, config)
    assert first.kept == 150
    add(lake, {0: [150, 151], 1: [152], 2: [153]})
    second = run(lake, engines, config, "r2")
    assert (second.known, second.kept) == (150, 4)
    assert sum(endpoint.calls.values()) == 154
    assert second.metrics["unpaired"] == 1
    more = run(lake, engines, config_of(endpoint, rounds=2), "r3")
    assert more.known >= 154
    assert more.kept <= 154


def test_targets_and_other_clusterings_are_not_judged(lake, engines, endpoint):
    add(lake, {0: range(4)})
    add(lake, {0: range(4, 9)}, pool="target")
    endpoint.reply = judge_of(0)
    run(lake, engines, config_of(endpoint), sources=PairSources(CLUSTERING, ["target"]))
    assert {n for pair in judged(lake) for n in pair} == {0, 1, 2, 3}
    with pytest.raises(RunError, match="no conversation has a cluster; run the step cluster"):
        run(lake, engines, config_of(endpoint), "r2", PairSources("other"))


def test_what_cannot_be_read_is_in_quarantine_and_is_asked_again(lake, engines, endpoint):
    add(lake, {0: range(12)})
    good = judge_of(BIAS)
    odd = {text_of(3): "I like both.", text_of(5): '{"first": 900, "second": 3}'}

    def reply(prompt):
        return next((told for text, told in odd.items() if text in prompt), good(prompt))

    endpoint.reply = reply
    config = config_of(endpoint)
    line = run(lake, engines, config)
    # A third one that is paired with both would have more.
    assert line.quarantined == {"unparseable": 2, "out_of_range": 2}
    assert line.kept == 8
    assert {row["reason"] for row in rows_of(lake, "quarantine")} == set(line.quarantined)
    again = run(lake, engines, config, "r2")
    assert (again.known, again.kept) == (12, 0)
    endpoint.reply = good
    mended = run(lake, engines, config, "r3", None, replay, reasons=["out_of_range"])
    assert (mended.input, mended.kept) == (2, 2)
    resolved = {row["reason"]: row["resolved_by"] for row in rows_of(lake, "quarantine")}
    assert resolved == {"unparseable": None, "out_of_range": "r3"}
    run(lake, engines, config, "r4", None, replay)
    assert len(judged(lake)) == 12
    with pytest.raises(RunError, match=r"nothing of http-stub-judge_pair.* lies in quarantine"):
        run(lake, engines, config, "r5", None, replay)


def test_a_pairing_is_named_by_its_clusters_and_seed(endpoint):
    names = {
        pairing_name(config_of(endpoint, **settings), clustering)
        for clustering in ("x", "y")
        for settings in ({}, {"seed": 1}, {"rounds": 3}, {"scale": 10})
    }
    assert len(names) == 4
