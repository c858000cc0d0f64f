"""A local OpenAI-compatible endpoint that misbehaves as it is told, and counts what it is asked."""

import asyncio
import json
import re
import threading
from collections import Counter

import pytest
from aiohttp import web

QUERY = re.compile(r"<query>\n(.*)\n</query>", re.DOTALL)


def tags_for(query):
    """The stub's tags: the words of the query, in their order, so that every answer is known."""
    words = dict.fromkeys(re.findall(r"\w+", query.lower()))
    return [{"tag": word, "explanation": f"the query says {word}"} for word in words]


def completion(text, prompt_tokens=10, output_tokens=5, finish="stop", **message):
    """The body of a chat completion."""
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "stub",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": prompt_tokens + output_tokens,
        },
    }


def query_in(prompt):
    """The query of a tagger's prompt; of others, all of it."""
    found = QUERY.search(prompt)
    return found[1] if found else prompt


class StubEndpoint:
    """Answers every prompt by `reply`, at first with `tags_for`; `misbehave(query, n)` (n: how
    often this query came, from 1) may give a web.Response or "drop", "cut", "hang" instead."""

    def __init__(self):
        self.calls = Counter()
        self.bodies = []
        self.headers = []
        self.misbehave = lambda query, n: None
        self.reply = lambda prompt: json.dumps(tags_for(query_in(prompt)))
        self.delay = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()
        self._ready.wait()

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        self._ready.set()
        self._loop.run_forever()

    def stop(self):
        closed = asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop)
        closed.result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _chat(self, request):
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(request)
        finally:
            self._at_once -= 1

    async def _answer(self, request):
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        query = query_in(asked)
        self.calls[query] += 1
        if self.delay:
            await asyncio.sleep(self.delay)
        action = self.misbehave(query, self.calls[query])
        if action == "drop":
            request.transport.close()
            return web.Response()
        if action == "hang":
            await asyncio.sleep(30)
        if action == "cut":
            text = json.dumps(completion("x" * 200))
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
            )
            request.transport.write(f"{head}\r\n\r\n{text[:40]}".encode())
            request.transport.close()
            return web.Response()
        if action is not None:
            return action
        return web.json_response(completion(self.reply(asked)))


@pytest.fixture
def endpoint():
    """A stub of its own for each test."""
    stub = StubEndpoint()
    yield stub
    stub.stop()
