"""The engine of an endpoint alone: whatever comes back, it is an answer, a refusal or a stop."""

import asyncio
import json

import pyarrow as pa
import pytest
from aiohttp import web

from stub_endpoint import completion
from tagsieve.engines.llm.config import HttpConfig
from tagsieve.engines.llm.http import HttpEngine
from tagsieve.engines.llm.prompts import load_prompt
from tagsieve.engines.llm.replies import Refusal, Reply

HALF = "\ud83d"
"""Half of a character: JSON can name it, UTF-8 has none."""


@pytest.fixture
def ask(endpoint):
    """Answers to the prompts "q0", "q1" ..., and the counts."""

    def ask(misbehave, prompts=1, **settings):
        endpoint.misbehave = misbehave
        defaults = {"base_url": endpoint.url, "model": "m", "retries": 0, "timeout_seconds": 5}
        config = HttpConfig(**(defaults | settings))
        engine = HttpEngine(config, load_prompt("open_tags", ("query",)), None, None, "tag")

        async def answer():
            await engine.start({})
            return await engine.answer([{"query": f"q{n}"} for n in range(prompts)])

        return asyncio.run(answer())

    return ask


def body(text, status=200):
    return web.Response(text=text, status=status, content_type="application/json")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (f"ab {HALF} cd", "ab \ufffd cd"),
        (f"{HALF}\udca1 is one", "💡 is one"),  # both halves
        ("\udca1", "\ufffd"),
    ],
)
def test_half_a_character_in_an_answer_is_replaced(ask, text, read):
    (answer,), _ = ask(lambda query, n: body(json.dumps(completion(text))))
    assert answer.text == read
    assert pa.array([answer.text], pa.string())[0].as_py() == read


@pytest.mark.parametrize(
    "told",
    [
        body(json.dumps(completion(None, finish="content_filter", refusal=f"no {HALF}"))),
        body(json.dumps(completion(None, finish=HALF, refusal="no"))),
        body(json.dumps({"error": {"message": f"bad {HALF}"}}), status=400),
    ],
)
def test_half_a_character_in_a_refusal_is_replaced(ask, told):
    (answer,), _ = ask(lambda query, n: told)
    assert answer.reason == "refused"
    assert "\ufffd" in pa.array([answer.error], pa.string())[0].as_py()


@pytest.mark.parametrize(
    "told",
    [
        body("[" * 200_000),
        body('{"a":' * 100_000),
        body('{"choices": [{"message": ' + "[" * 500 + "]" * 500 + "}]}"),
        web.Response(body=b"\xff\xfe\x00", content_type="application/json"),
        web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"}),
        body("null"),
    ],
)
def test_a_body_that_is_no_answer_is_refused(ask, told):
    (answer,), _ = ask(lambda query, n: told)
    assert isinstance(answer, Refusal)
    assert answer.reason == "endpoint"


def test_a_reply_that_is_no_http_is_refused(ask):
    headers = {f"X-{n}": "x" * 8000 for n in range(20)} | {"X-Long": "x" * 50_000}
    (answer,), _ = ask(lambda query, n: web.Response(text="{}", headers=headers))
    assert (answer.reason, "no HTTP" in answer.error) == ("endpoint", True)


@pytest.mark.parametrize("tokens", [10**30, 10**400, -5, 2**40])
def test_tokens_that_no_request_has_are_not_counted(ask, tokens):
    (answer,), counts = ask(
        lambda query, n: body(json.dumps(completion("[]", output_tokens=tokens)))
    )
    assert (answer.text, answer.prompt_tokens, answer.output_tokens) == ("[]", 10, None)
    assert counts["budget_tokens"] > 512  # the most that it can have cost


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Mon, 99 Foo 2026",
        "1e999x",
        "nan",
        "-5",
    ],
)
def test_a_retry_after_that_says_nothing_is_passed_over(ask, date):
    busy = web.Response(status=429, headers={"Retry-After": date})
    (answer,), _ = ask(lambda query, n: busy if n == 1 else None, retries=1)
    assert isinstance(answer, Reply)


def most_of(tokens):
    """Of a prompt of `ask` and its answer: the prompt's bytes and the answer's tokens."""
    template = load_prompt("open_tags", ("query",))
    rendered = template.render({"query": "q0"})
    return len(json.dumps(rendered, ensure_ascii=False).encode()) + tokens


@pytest.mark.parametrize(
    "fault", ["hang", "drop", "cut", body("{no json"), body(json.dumps({"choices": []}))]
)
def test_a_request_without_an_answer_counts_as_the_most_it_can_cost(ask, endpoint, fault):
    most = most_of(64)
    answers, counts = ask(
        lambda query, n: fault,
        prompts=2,
        retries=5,
        timeout_seconds=0.5,
        concurrency=1,
        budget={"tokens": int(2.5 * most)},
        decoding={"max_tokens": 64},
    )
    assert endpoint.calls.total() == 2
    assert counts["budget_tokens"] == 2 * most
    assert counts["not_asked"] == 2  # the next run asks them
    assert [type(answer).__name__ for answer in answers] == ["NotAsked", "NotAsked"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_request_that_is_turned_down_costs_nothing(ask, status):
    (answer,), counts = ask(
        lambda query, n: web.Response(status=status) if n < 3 else None,
        retries=3,
        budget={"tokens": most_of(64)},
        decoding={"max_tokens": 64},
    )
    assert isinstance(answer, Reply)
    assert (counts["requests"], counts["budget_tokens"]) == (3, 15)


def test_a_request_that_finds_nobody_costs_nothing(ask):
    url = "http://127.0.0.1:9/v1"
    (answer,), counts = ask(None, base_url=url, retries=1, max_failures=2)
    assert answer.reason == "endpoint"
    assert (counts["requests"], counts["budget_tokens"]) == (2, 0)


@pytest.mark.parametrize("thoughts", [{}, {"reasoning_content": "Hm, let me see"}])
def test_a_model_that_is_cut_while_it_thinks_is_asked_once(ask, endpoint, thoughts):
    told = completion(None, finish="length", output_tokens=512, **thoughts)
    (answer,), counts = ask(lambda query, n: body(json.dumps(told)), retries=3)
    assert answer == Reply("", cut=True, prompt_tokens=10, output_tokens=512)
    assert (endpoint.calls.total(), counts["budget_tokens"]) == (1, 522)
