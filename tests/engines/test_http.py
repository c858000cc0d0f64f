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
