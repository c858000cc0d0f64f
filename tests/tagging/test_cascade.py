"""The cascade: which tagger answers, what that costs, and where the answers lie."""

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from handmade import recorded
from query_lakes import QUERIES, add_samples, tagged
from stub_endpoint import tags_for
from tagsieve import records
from tagsieve.errors import UsageError
from tagsieve.recipe import Recipe
from tagsieve.tagging import (
    CascadeConfig,
    MemoryTaggerConfig,
    replay,
    tag,
    tagger_fingerprint,
)
from tagsieve.tagging.cascade import Bin, choose_threshold

LLM = {"kind": "http", "base_url": "http://localhost/v1", "model": "stub"}
MEAN_TAGS = 3.0

bins = st.lists(
    st.builds(
        Bin,
        confidence=st.none() | st.integers(0, 10_000).map(lambda n: n / 10_000),
        queries=st.integers(1, 50),
        tags=st.integers(0, 200),
    ),
    min_size=1,
    unique_by=lambda b: b.confidence,
)


def share_and_f1(found, threshold):
    """By the definitions, query by query: the reference."""
    asked = hits = sizes = 0.0
    for b in found:
        if b.confidence is None or b.confidence < threshold:
            asked += b.queries
            hits += 2 * b.queries * MEAN_TAGS
            sizes += 2 * b.queries * MEAN_TAGS
        else:
            hits += b.confidence * (b.tags + b.queries * MEAN_TAGS)
            sizes += b.tags + b.queries * MEAN_TAGS
    return asked / sum(b.queries for b in found), hits / sizes


def cascade(**settings):
    return CascadeConfig(llm=LLM, **settings)


@given(bins, st.floats(0, 1))
def test_threshold_of_a_budget_is_the_highest_that_keeps_to_it(found, budget):
    chosen = choose_threshold(found, cascade(llm_share=budget), MEAN_TAGS)
    share, f1 = share_and_f1(found, chosen.value)
    assert (chosen.llm_share, chosen.expected_f1) == pytest.approx((share, f1))
    least, _ = share_and_f1(found, 0.0)
    assert share <= max(budget, least)
    sure = [b.confidence for b in found if b.confidence is not None]
    higher = [confidence for confidence in sure if confidence >= chosen.value]
    if higher:
        assert share_and_f1(found, min(higher) + 0.0001)[0] > budget


@given(bins, st.floats(0.01, 1))
def test_threshold_of_a_quality_is_the_lowest_that_reaches_it(found, target):
    chosen = choose_threshold(found, cascade(target_f1=target), MEAN_TAGS)
    _, f1 = share_and_f1(found, chosen.value)
    assert chosen.expected_f1 == pytest.approx(f1)
    assert f1 >= target - 1e-9
    below = {0.0} | {round(b.confidence + 0.0001, 4) for b in found if b.confidence is not None}
    for lower in (t for t in below if t < chosen.value):
        assert share_and_f1(found, lower)[1] < target + 1e-9


def test_cascade_needs_exactly_one_way_to_choose():
    for ways in ({}, {"llm_share": 0.1, "threshold": 0.5}):
        with pytest.raises(ValueError, match="exactly one of llm_share, target_f1 and threshold"):
            cascade(**ways)
    recipe = Recipe.model_validate(
        {"lake": "x", "steps": ["tag"], "tag": {"kind": "cascade", "llm": LLM, "llm_share": 0.2}}
    )
    assert recipe.tag.memory.banks == ("builtin",)


@pytest.fixture
def make_config(endpoint, own_bank):
    def make(**ways):
        memory = MemoryTaggerConfig(banks=(own_bank,))
        llm = LLM | {"base_url": endpoint.url, "retries": 0}
        return CascadeConfig(memory=memory, llm=llm, **ways)

    return make


def by_tagger(lake):
    found = {}
    for (query_id, tagger), tags in tagged(lake).items():
        found.setdefault(tagger, {})[query_id] = tags
    return found


def test_cascade_asks_the_model_for_the_budgeted_share_and_never_twice(
    lake, make_context, make_config, endpoint
):
    add_samples(lake, [*QUERIES, *(f"{q} ({n})" for n in range(9) for q in QUERIES), "🤷🤷"])
    config = make_config(llm_share=0.3)
    first = make_context("tag")
    tag(first, config)
    first.run.check()
    assert (first.run.input, first.run.kept) == (51, 51)
    asked = sum(endpoint.calls.values())
    assert 0 < asked <= 0.3 * 51
    assert endpoint.calls["🤷🤷"] == 1  # the memory tagger knows no word of it
    name, memory, llm = (tagger_fingerprint(c) for c in (config, config.memory, config.llm))
    rows = by_tagger(lake)
    assert len(rows[name]) == 51
    assert len(rows[memory]) == 50
    assert rows[llm] == {
        records.query_id(q): [t["tag"] for t in tags_for(q)] for q in endpoint.calls
    }
    for query_id, tags in rows[name].items():
        assert tags == rows[llm].get(query_id, rows[memory].get(query_id))
    (row,) = lake.arrow("cascades").to_pylist()
    assert row["llm_share"] == pytest.approx(asked / 51)
    # The quarantine row of the memory tagger is closed: the query has an answer.
    assert [r["resolved_by"] for r in lake.arrow("quarantine").to_pylist()] == ["run1"]

    # New rows are judged by the same threshold, another budget repeats no call.
    add_samples(lake, ["A poem on rain, please", "zq xv 77 ##"], pool="new")
    second = make_context("tag")
    tag(second, config)
    second.run.check()
    assert (second.run.known, second.run.kept) == (51, 2)
    assert lake.arrow("cascades").num_rows == 1
    third = make_context("tag")
    tag(third, make_config(llm_share=1.0))
    third.run.check()
    assert third.run.kept == 53
    assert set(endpoint.calls.values()) == {1}
    assert len(endpoint.calls) == 53


def test_cascade_takes_over_what_a_replay_answers(
    lake, engines, make_config, endpoint, monkeypatch
):
    monkeypatch.setattr("tagsieve.tagging.cascade.COPIED_ROWS", 3)
    fault = web.Response(status=400)
    endpoint.misbehave = lambda query, n: fault if query == QUERIES[0] and n == 1 else None
    add_samples(lake, QUERIES)
    config = make_config(llm_share=1.0)
    runs = [
        recorded(lake, engines, step, f"run{number}", function, config)
        for number, (step, function) in enumerate(
            [("tag", tag), ("tag", tag), ("replay", replay), ("tag", tag), ("tag", tag)]
        )
    ]
    assert [run.quarantined.total() for run in runs] == [1, 0, 0, 0, 0]
    assert [run.kept for run in runs] == [4, 0, 1, 1, 0]
    assert runs[4].metrics.get("from_earlier_run") == 1  # nothing has come since
    name = tagger_fingerprint(config)
    rows = [row for row in lake.arrow("raw_tags").to_pylist() if row["tagger"] == name]
    assert {row["query_id"] for row in rows} == {records.query_id(query) for query in QUERIES}
    assert len(rows) == len(QUERIES)
    assert endpoint.calls == {query: 1 + (query == QUERIES[0]) for query in QUERIES}
    # Three rows and one, then one; none by Spark, which must not commit beside other taggers.
    assert lake.commits_of("raw_tags", f"tag {name}") == 3
    assert not any("Spark" in str(commit) for commit in lake.delta("raw_tags").history())


@pytest.mark.soak
def test_cascade_leaves_what_the_model_could_not_answer_in_quarantine(
    lake, make_context, make_config, endpoint
):
    endpoint.misbehave = lambda query, n: web.Response(status=400) if query == QUERIES[0] else None
    add_samples(lake, QUERIES)
    config = make_config(llm_share=1.0)
    context = make_context("tag")
    tag(context, config)
    context.run.check()
    assert (context.run.kept, context.run.quarantined) == (4, {"refused": 1})
    again = make_context("tag")
    add_samples(lake, ["Another one"], pool="new")
    tag(again, config)
    again.run.check()
    assert (again.run.known, again.run.kept) == (5, 1)


def test_cascade_with_a_bank_that_is_not_there_is_refused(make_config):
    config = make_config(llm_share=0.5)
    broken = config.model_copy(update={"memory": MemoryTaggerConfig(banks=("/no/bank",))})
    with pytest.raises(UsageError, match="is no bank"):
        tagger_fingerprint(broken)
