"""Any OpenAI-compatible endpoint: many requests at once, tried again, within a budget."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from tagsieve.engines.actors import NOT_ASKED, Counts
from tagsieve.engines.llm.config import BudgetConfig, HttpConfig
from tagsieve.engines.llm.fitting import Fitted, Fitter, TooLong, load_tokenizer
from tagsieve.engines.llm.prompts import PromptTemplate
from tagsieve.engines.llm.replies import (
    ENDPOINT,
    OVERLONG,
    REFUSED,
    Answer,
    NotAsked,
    Refusal,
    Reply,
    storable,
)
from tagsieve.errors import RunError, UsageError

if TYPE_CHECKING:
    from tenacity import RetryCallState

LONGEST_WAIT = 120.0
"""Seconds: a longer Retry-After is not waited for in one go."""

MOST_TOKENS = 2**31
"""No request has as many: who says so miscounts."""

REQUESTS, TOKENS = "requests", "budget_tokens"


def identity(config: HttpConfig) -> list[Any]:
    """What decides the answers of a model at an endpoint, for a fingerprint."""
    return [
        config.model,
        config.decoding.model_dump(),
        config.guided_json,
        config.extra_body,
        config.max_prompt_tokens,
    ]


def api_key(config: HttpConfig, setting: str) -> str | None:
    """The key, from the environment; UsageError when the variable is not set. `setting`: what the
    config is in the recipe."""
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env)
    if not key:
        raise UsageError(
            f"{setting}.api_key_env={config.api_key_env}: no such environment variable; "
            "export it, on a cluster for Ray's workers too"
        )
    return key


class Budget:
    """What may still be spent. Requests reserve the most that they can cost, so that together they
    never go over; what they did not use comes back."""

    def __init__(self, config: BudgetConfig, counted: Counts) -> None:
        self._limits = (config.requests, config.tokens)
        self._spent = [counted.get(REQUESTS, 0.0), counted.get(TOKENS, 0.0)]
        self._reserved = [0.0, 0.0]
        self._freed = asyncio.Condition()

    async def reserve(self, tokens: float) -> bool:
        """Room for one request of at most so many tokens; waits while others may give some back.
        False: there is none."""
        async with self._freed:
            while not self._has_room(tokens):
                if not any(self._reserved):
                    return False
                await self._freed.wait()
            self._reserved = [self._reserved[0] + 1, self._reserved[1] + tokens]
            return True

    def _has_room(self, tokens: float) -> bool:
        return all(
            limit is None or spent + reserved + more <= limit
            for limit, spent, reserved, more in zip(
                self._limits, self._spent, self._reserved, (1, tokens), strict=True
            )
        )

    async def settle(self, reserved: float, used: float) -> None:
        """A request that had reserved tokens has ended and used some."""
        async with self._freed:
            self._reserved = [self._reserved[0] - 1, self._reserved[1] - reserved]
            self._spent = [self._spent[0] + 1, self._spent[1] + used]
            self._freed.notify_all()


class _Broken(Exception):  # noqa: N818
    """A body that is no answer."""


class _BudgetSpent(Exception):  # noqa: N818
    """No further request may be made."""


class HttpEngine:
    """Answers prompts at an endpoint, in one asyncio loop with one pool of connections.

    `setting`: what the config is in the recipe. The others as of `VllmEngine`.
    """

    def __init__(
        self,
        config: HttpConfig,
        template: PromptTemplate,
        schema: Any,
        cut: str | None,
        setting: str,
    ) -> None:
        self._config, self._template, self._setting = config, template, setting
        self._cut = cut
        self._failures = 0
        self._settings = _settings(config, schema)

    async def start(self, counted: Counts) -> None:
        """Open the client. `counted`: what earlier actors of this run have spent."""
        import httpx2
        from aiolimiter import AsyncLimiter
        from openai import AsyncOpenAI, DefaultAioHttpClient

        config = self._config
        self._key = api_key(config, self._setting)
        limits = httpx2.Limits(
            max_connections=config.concurrency,
            max_keepalive_connections=config.concurrency,
            keepalive_expiry=60.0,
        )
        self._client = AsyncOpenAI(
            base_url=config.base_url,
            api_key=self._key or "none",
            timeout=config.timeout_seconds,
            max_retries=0,
            http_client=DefaultAioHttpClient(limits=limits, timeout=config.timeout_seconds),
        )
        self._gate = asyncio.Semaphore(config.concurrency)
        self._budget = Budget(config.budget, counted)
        per_minute = config.requests_per_minute
        # Spread over the minute: a bucket that holds a whole one would let it all through at once.
        self._limiter = AsyncLimiter(1, 60.0 / per_minute) if per_minute else None
        self._fitter = None
        if config.tokenizer:
            tokenizer = load_tokenizer(config.tokenizer)
            self._fitter = Fitter(tokenizer, self._template, config.max_prompt_tokens, self._cut)

    async def answer(
        self, prompts: Sequence[Mapping[str, str]]
    ) -> tuple[list[Answer], dict[str, float]]:
        """One answer per prompt, in their order, and what was counted.

        Raises RunError when the endpoint does not know the key or the model, or fails
        `max_failures` times with no answer in between.
        """
        fitted: Sequence[Fitted | TooLong] = (
            self._fitter.fit(prompts) if self._fitter else [Fitted([], p) for p in prompts]
        )
        counts = dict.fromkeys(
            ("model_calls", REQUESTS, TOKENS, "prompt_tokens", "output_tokens", NOT_ASKED), 0.0
        )
        answers = await asyncio.gather(*(self._one(prompt, counts) for prompt in fitted))
        for answer in answers:
            if isinstance(answer, Reply):
                counts["prompt_tokens"] += answer.prompt_tokens or 0
                counts["output_tokens"] += answer.output_tokens or 0
            counts["model_calls"] += not isinstance(answer, NotAsked)
            counts[NOT_ASKED] += isinstance(answer, NotAsked)
        return list(answers), counts

    async def _one(self, prompt: Fitted | TooLong, counts: dict[str, float]) -> Answer:
        from openai import (
            APIError,
            APIStatusError,
            AuthenticationError,
            NotFoundError,
            PermissionDeniedError,
        )
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

        if isinstance(prompt, TooLong):
            return Refusal(OVERLONG, f"the prompt has {prompt.tokens} tokens")
        tries = AsyncRetrying(
            stop=stop_after_attempt(self._config.retries + 1),
            wait=_pause,
            retry=retry_if_exception(_passes),
            reraise=True,
        )
        async with self._gate:
            try:
                reply: Reply | Refusal = await tries(self._try, prompt, counts)
            except _BudgetSpent:
                return NotAsked()
            except (AuthenticationError, PermissionDeniedError, NotFoundError) as error:
                raise RunError(
                    f"the endpoint {self._config.base_url} refuses model {self._config.model!r} "
                    f"({self._setting}: base_url, model, api_key_env): {self._told(error)}"
                ) from error
            except (APIError, _Broken, TimeoutError) as error:
                its_own = isinstance(error, APIStatusError) and not _passes(error)
                refusal = Refusal(REFUSED if its_own else ENDPOINT, self._told(error))
                self._failed(refusal)
                return refusal
        if isinstance(reply, Refusal):
            self._failed(reply)
        else:
            self._failures = 0
        return reply

    def _failed(self, refusal: Refusal) -> None:
        self._failures += 1
        if self._failures >= self._config.max_failures:
            raise RunError(
                f"the endpoint {self._config.base_url} failed {self._failures} times with no "
                f"answer in between ({self._setting}.max_failures), last with: {refusal.error}"
            )

    def _told(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}"
        cause = error.__cause__
        if cause is not None:
            text += f" ({type(cause).__name__}: {cause})"
        return storable(text.replace(self._key, "***") if self._key else text)

    async def _try(self, prompt: Fitted, counts: dict[str, float]) -> Reply | Refusal:
        """One request. Raises what `_passes` lets try again, and what it does not."""
        from openai import APIError

        rendered = self._template.render(prompt.fields)
        size = len(prompt.tokens) or len(json.dumps(rendered, ensure_ascii=False).encode())
        most = float(size + self._config.decoding.max_tokens)
        if not await self._budget.reserve(most):
            raise _BudgetSpent
        used = most  # of what was sent and has no answer that counts
        try:
            async with AsyncExitStack() as stack:
                if self._limiter:
                    await stack.enter_async_context(self._limiter)
                counts[REQUESTS] += 1
                async with asyncio.timeout(self._config.timeout_seconds):
                    completion = await self._request(rendered)
            usage = _part(completion, "usage", dict) or {}
            prompt_tokens = _count(usage, "prompt_tokens")
            output_tokens = _count(usage, "completion_tokens")
            if prompt_tokens is not None and output_tokens is not None:
                used = float(prompt_tokens + output_tokens)
            return _reply(completion, prompt.cut, prompt_tokens, output_tokens)
        except APIError as error:
            if _is_free(error):
                used = 0.0
            raise
        finally:
            counts[TOKENS] += used
            await self._budget.settle(most, used)

    async def _request(self, prompt: Any) -> Any:
        """The body of the answer: any JSON value. Raises _Broken when it is none."""
        import httpx2
        from aiohttp import ClientError

        text = isinstance(prompt, str)
        try:
            # Not by `chat.completions.create`: checking its arguments and building its models takes
            # a third of the time of a call.
            response = await self._client.post(
                "/completions" if text else "/chat/completions",
                body=self._settings | {"prompt" if text else "messages": prompt},
                cast_to=httpx2.Response,
            )
            return response.json()
        except ClientError as error:  # `openai` knows those of a lost connection alone
            raise _Broken(f"the answer is no HTTP: {error}") from error
        except (ValueError, RecursionError) as error:
            raise _Broken(f"the answer's body cannot be read: {error}") from error


def _settings(config: HttpConfig, schema: Any) -> dict[str, Any]:
    """What every request asks for."""
    decoding = config.decoding
    asked: dict[str, Any] = {
        "model": config.model,
        "max_tokens": decoding.max_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
    }
    if decoding.temperature:
        asked["seed"] = decoding.seed
    if config.guided_json:
        form = {"name": "answer", "schema": schema, "strict": True}
        asked["response_format"] = {"type": "json_schema", "json_schema": form}
    return asked | config.extra_body


def _reply(
    completion: Any, cut: bool, prompt_tokens: int | None, output_tokens: int | None
) -> Reply | Refusal:
    choices = _part(completion, "choices", list)
    if not choices:
        raise _Broken("the answer has no choices")
    message = _part(choices[0], "message", dict)
    text = _text(message, "content") if message else _text(choices[0], "text")
    finish, refusal = _text(choices[0], "finish_reason"), _text(message, "refusal")
    if finish == "content_filter" or (text is None and refusal):
        return Refusal(REFUSED, f"finish_reason {finish}: {refusal}")
    if text is None and finish == "length":
        text = ""  # a reasoning model that was cut while it thought
    if text is None:
        raise _Broken(f"the answer has no text (finish_reason {finish})")
    return Reply(text, finish == "length", cut, prompt_tokens, output_tokens)


def _part(value: Any, key: str, kind: type) -> Any:
    """A part of what an endpoint sent; None where it is not there, or not of the kind."""
    part = value.get(key) if isinstance(value, dict) else None
    return part if isinstance(part, kind) else None


def _text(value: Any, key: str) -> str | None:
    part = _part(value, key, str)
    return None if part is None else storable(part)


def _count(value: Any, key: str) -> int | None:
    """A number of tokens; None where it can be none."""
    part = _part(value, key, int)
    return part if part is not None and 0 <= part <= MOST_TOKENS else None


def _passes(error: BaseException) -> bool:
    """Whether the same request may do better later."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, APIConnectionError | TimeoutError | _Broken)


def _is_free(error: BaseException) -> bool:
    """Whether a request that ended so was turned down, or never left."""
    from aiohttp import ClientConnectorError
    from openai import APIStatusError

    # The client calls any lost connection a timeout; what it was stands two causes below.
    lost = getattr(error.__cause__, "__cause__", None)
    return isinstance(error, APIStatusError) or isinstance(lost, ClientConnectorError)


def _pause(state: RetryCallState) -> float:
    """Seconds before the next try: growing, with jitter, and at least what Retry-After says."""
    from tenacity import wait_random_exponential

    grown = wait_random_exponential(multiplier=0.5, max=30.0)(state)
    error = state.outcome.exception() if state.outcome else None
    headers = getattr(getattr(error, "response", None), "headers", {})
    return min(max(grown, _retry_after(headers.get("retry-after"))), LONGEST_WAIT)


def _retry_after(value: str | None) -> float:
    """The seconds that the header asks for; 0 when it says nothing that can be read."""
    if not value:
        return 0.0
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
