"""The HTTP tagger against a local endpoint: faults, budgets, keys, and what lies in the tables."""

import asyncio
import json
import time

import pytest
from aiohttp import web

from query_lakes import QUERIES, add_samples, tagged
from stub_endpoint import completion, tags_for
from tagsieve import records
from tagsieve.errors import RunError, UsageError
from tagsieve.tagging import HttpTaggerConfig, check_tagger, replay, tag, tagger_fingerprint


@pytest.fixture
def make_config(endpoint):
    def make(**settings):
        defaults = {"base_url": endpoint.url, "model": "stub", "timeout_seconds": 2.0}
        return HttpTaggerConfig(**(defaults | settings))

    return make


def expected(queries):
    return {records.query_id(q): [t["tag"] for t in tags_for(q)] for q in queries}


def by_query(lake):
    return {query_id: tags for (query_id, _), tags in tagged(lake).items()}


def quarantine(lake):
    return {
        row["payload"].decode(): row["reason"]
        for row in lake.arrow("quarantine").to_pylist()
        if row["resolved_by"] is None
    }


def test_http_tags_every_query_once_over_kept_connections(
    lake, make_context, make_config, endpoint
):
    add_samples(lake, QUERIES)
    add_samples(lake, QUERIES[:2], pool="q")
    context = make_context("tag")
    tag(context, make_config(concurrency=2))
    context.run.check()
    assert by_query(lake) == expected(QUERIES)
    assert set(endpoint.calls.values()) == {1}
    assert endpoint.most_at_once <= 2
    metrics = context.run.metrics
    assert (metrics["model_calls"], metrics["requests"]) == (5, 5)
    assert (metrics["prompt_tokens"], metrics["output_tokens"]) == (50, 25)
    row = lake.arrow("raw_tags").to_pylist()[0]
    assert (row["prompt_tokens"], row["output_tokens"], row["flags"]) == (10, 5, [])
    sent = endpoint.bodies[0]
    assert (sent["temperature"], sent["max_tokens"], sent["model"]) == (0.0, 512, "stub")


def test_http_goes_on_through_every_passing_fault(lake, make_context, make_config, endpoint):
    faults = dict(
        zip(
            QUERIES,
            [
                "drop",
                "cut",
                web.Response(status=429, headers={"Retry-After": "1"}),
                web.Response(status=503, text="overloaded"),
                web.Response(text="{no json", content_type="application/json"),
            ],
            strict=True,
        )
    )
    faults["Hang please"] = "hang"
    endpoint.misbehave = lambda query, n: faults[query] if n == 1 else None
    add_samples(lake, list(faults))
    context = make_context("tag")
    started = time.monotonic()
    tag(context, make_config(retries=3))
    context.run.check()
    assert by_query(lake) == expected(faults)
    assert set(endpoint.calls.values()) == {2}
    assert context.run.metrics["requests"] == 12
    assert context.run.metrics["model_calls"] == 6
    assert time.monotonic() - started > 1  # Retry-After was waited for


def test_http_sets_aside_what_fails_and_replay_tries_it_again(
    lake, make_context, make_config, endpoint
):
    answers = {
        QUERIES[0]: (400, {"error": {"message": "context too long"}}),
        QUERIES[1]: (500, {}),
        QUERIES[2]: (200, completion("I am sorry, I cannot do that.")),
        # Half a character, which no table can hold.
        QUERIES[3]: (200, completion(None, finish="content_filter", refusal="\ud83d")),
    }

    def misbehave(query, n):
        if query in answers:
            status, body = answers[query]
            return web.json_response(body, status=status)
        return None

    endpoint.misbehave = misbehave
    add_samples(lake, QUERIES)
    config = make_config(retries=1)
    first = make_context("tag")
    tag(first, config)
    first.run.check()
    assert by_query(lake) == expected(QUERIES[4:])
    assert first.run.quarantined == {"refused": 2, "endpoint": 1, "unparseable": 1}
    assert quarantine(lake) == {
        QUERIES[0]: "refused",
        QUERIES[1]: "endpoint",
        "I am sorry, I cannot do that.": "unparseable",  # the raw text
        QUERIES[3]: "refused",
    }
    errors = {row["error"] for row in lake.arrow("quarantine").to_pylist()}
    assert any("context too long" in error for error in errors)
    assert "finish_reason content_filter: \ufffd" in errors

    del answers[QUERIES[1]], answers[QUERIES[2]]
    second = make_context("replay")
    replay(second, config, ["endpoint"])
    second.run.check()
    assert (second.run.input, second.run.kept) == (1, 1)
    assert endpoint.calls[QUERIES[2]] == 1  # not of that reason
    third = make_context("replay")
    replay(third, config)
    third.run.check()
    assert (third.run.input, third.run.kept, third.run.quarantined) == (3, 1, {"refused": 2})
    assert set(quarantine(lake).values()) == {"refused"}
    assert len(quarantine(lake)) == 2
    resolved = {r["resolved_by"] for r in lake.arrow("quarantine").to_pylist() if r["resolved_by"]}
    assert resolved == {second.run.run_id, third.run.run_id}
    with pytest.raises(RunError, match="for endpoint; 2 do for other reasons"):
        replay(make_context("replay"), config, ["endpoint"])


@pytest.mark.parametrize(("status", "told"), [(401, "no such key"), (404, "no such model")])
def test_http_stops_at_once_when_the_endpoint_knows_no_key_or_model(
    lake, make_context, make_config, endpoint, status, told
):
    endpoint.misbehave = lambda query, n: web.json_response(
        {"error": {"message": told}}, status=status
    )
    add_samples(lake, QUERIES)
    with pytest.raises(RunError, match=f"refuses model 'stub'.*{told}"):
        tag(make_context("tag"), make_config())
    assert lake.arrow("quarantine").num_rows == 0


def test_http_stops_when_nothing_but_failures_comes(lake, make_context, make_config, endpoint):
    endpoint.misbehave = lambda query, n: web.Response(status=500, text="out of order")
    add_samples(lake, QUERIES)
    with pytest.raises(RunError, match=r"failed 3 times with no answer .*max_failures.*500"):
        tag(make_context("tag"), make_config(retries=0, max_failures=3))
    assert lake.arrow("quarantine").num_rows == 0


def test_http_stops_when_nobody_listens(lake, make_context, make_config):
    add_samples(lake, QUERIES)
    config = make_config(base_url="http://127.0.0.1:9/v1", retries=0, max_failures=2)
    with pytest.raises(RunError, match="Cannot connect to host"):
        tag(make_context("tag"), config)


@pytest.mark.parametrize("budget", [{"requests": 3}, {"tokens": 2600}])
def test_http_keeps_to_its_budget_and_goes_on_in_the_next_run(
    lake, make_context, make_config, endpoint, budget
):
    def misbehave(query, n):
        if query == QUERIES[0] and n == 1:
            return web.Response(status=503)
        text = json.dumps(tags_for(query))
        return web.json_response(completion(text, prompt_tokens=600, output_tokens=400))

    endpoint.misbehave = misbehave
    add_samples(lake, QUERIES)
    config = make_config(budget=budget, decoding={"max_tokens": 500}, concurrency=1)
    first = make_context("tag")
    tag(first, config)
    first.run.check()
    left = first.run.rejected["over_budget"]
    assert left == 5 - first.run.kept > 0
    assert sum(endpoint.calls.values()) <= budget.get("requests", 99)
    assert first.run.metrics["budget_tokens"] <= budget.get("tokens", 10**6)
    runs = 1
    while left:
        context = make_context("tag")
        tag(context, config)
        context.run.check()
        assert context.run.known == 5 - left
        left = context.run.rejected["over_budget"]
        runs += 1
        assert runs < 5
    assert by_query(lake) == expected(QUERIES)


def test_http_key_goes_to_the_endpoint_and_nowhere_else(
    lake, make_context, make_config, endpoint, monkeypatch, tmp_path
):
    config = make_config(api_key_env="TAGSIEVE_TEST_KEY")
    with pytest.raises(UsageError, match=r"tag\.api_key_env=TAGSIEVE_TEST_KEY: no such"):
        check_tagger(config, make_context("tag").engines.ray_config)
    secret = "sk-very-secret-1234567890"
    endpoint.misbehave = lambda query, n: (
        web.json_response({"error": {"message": f"bad: {secret}"}}, status=400)
        if query == QUERIES[0]
        else None
    )
    add_samples(lake, QUERIES[:2])
    monkeypatch.setenv("TAGSIEVE_TEST_KEY", secret)
    from tagsieve.engines.llm.http import HttpEngine
    from tagsieve.tagging.llm import answer_schema, prompt_of

    async def ask():
        engine = HttpEngine(config, prompt_of(config), answer_schema(config), "query", "tag")
        await engine.start({})
        return await engine.answer([{"query": query} for query in QUERIES[:2]])

    answers, _ = asyncio.run(ask())
    assert endpoint.headers[0]["Authorization"] == f"Bearer {secret}"
    assert answers[0].error.endswith("bad: ***")
    assert secret not in repr(answers)
    assert secret not in tagger_fingerprint(config)


def test_http_rate_limit_spreads_the_requests(lake, make_context, make_config, endpoint):
    add_samples(lake, QUERIES)
    started = time.monotonic()
    tag(make_context("tag"), make_config(requests_per_minute=120))
    assert time.monotonic() - started > 2.0
    assert by_query(lake) == expected(QUERIES)


def test_http_guided_json_and_extra_body_reach_the_endpoint(
    lake, make_context, make_config, endpoint
):
    add_samples(lake, QUERIES[:1])
    tag(make_context("tag"), make_config(guided_json=True, extra_body={"top_k": 1}))
    sent = endpoint.bodies[0]
    assert sent["response_format"]["json_schema"]["schema"]["required"] == ["tags"]
    assert sent["top_k"] == 1


def test_http_prompt_with_text_goes_to_completions(lake, make_context, make_config, endpoint):
    endpoint.misbehave = lambda query, n: web.json_response(
        {
            "object": "text_completion",
            "choices": [{"index": 0, "finish_reason": "length", "text": ' [{"tag": "a"}, {"ta'}],
        }
    )
    add_samples(lake, QUERIES[:1])
    tag(make_context("tag"), make_config(prompt="instagger_paper"))
    assert endpoint.bodies[0]["prompt"].endswith(f"Query: {QUERIES[0]} Assistant:")
    row = lake.arrow("raw_tags").to_pylist()[0]
    assert row["flags"] == ["repaired", "output_cut"]
    assert row["prompt_tokens"] is None


def test_http_overlong_queries_lose_their_middle_or_are_set_aside(
    lake, make_context, make_config, endpoint, tiny_llama
):
    long = "start " + "word " * 500 + "finish"
    add_samples(lake, [long, QUERIES[0]])
    settings = {"tokenizer": tiny_llama, "max_prompt_tokens": 900}
    tag(make_context("tag"), make_config(**settings))
    asked = next(query for query in endpoint.calls if query != QUERIES[0])
    assert asked.startswith("start word")
    assert asked.endswith("word finish")
    assert " … " in asked
    flags = {row["query_id"]: row["flags"] for row in lake.arrow("raw_tags").to_pylist()}
    assert flags == {records.query_id(long): ["query_truncated"], records.query_id(QUERIES[0]): []}
    context = make_context("tag")
    tag(context, make_config(**settings, overlong="quarantine"))
    assert (context.run.kept, context.run.quarantined) == (1, {"overlong": 1})


def test_fingerprint_has_what_decides_the_answer_and_nothing_else(make_config):
    one = tagger_fingerprint(make_config())
    same = [
        {"base_url": "https://elsewhere/v1"},
        {"concurrency": 1, "retries": 9, "timeout_seconds": 1},
        {"api_key_env": "SOME_KEY", "budget": {"requests": 5}},
        {"commit_rows": 30, "max_failures": 7},
    ]
    other = [
        {"model": "another"},
        {"prompt": "instagger_chat"},
        {"decoding": {"temperature": 0.5}},
        {"guided_json": True},
        {"extra_body": {"top_k": 1}},
    ]
    assert {tagger_fingerprint(make_config(**settings)) for settings in same} == {one}
    changed = {tagger_fingerprint(make_config(**settings)) for settings in other}
    assert len(changed | {one}) == 1 + len(other)
