"""An endpoint that evolves and scores by rules, and misbehaves as it is told."""

import json
import re

from aiohttp import web

from handmade import sample
from stub_endpoint import completion
from tagsieve import records

REQUEST = re.compile(r"<request>\n(.*?)\n</request>", re.DOTALL)
RESPONSE = re.compile(r"<response>\n(.*?)\n</response>", re.DOTALL)
VARIANT = re.compile(r"<variant (\d+)>\n(.*?)\n</variant \1>", re.DOTALL)


def pair(query, answer="", later=()):
    """A row of `samples` that asks and is answered."""
    turns = [("user", query), ("assistant", answer or f"An answer to {query}"), *later]
    key = records.sample_id(turns)
    return sample("p", key, [records.query_id(query)], turns=turns)


def score_of(text):
    """The stub's score of a variant: 1 for the seed, one more for each evolution, at most 6."""
    return min(1 + text.count(" and more"), 6)


class Script:
    """Answers the prompts that ship. `evolve(parent)` and `rank(texts)` may give the text of the
    answer, or a web.Response, instead."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.evolve = lambda parent: None
        self.rank = lambda texts: None
        self.evolved, self.ranked = [], []
        endpoint.misbehave = self.answer

    @property
    def calls(self):
        return len(self.evolved) + len(self.ranked)

    def answer(self, asked, n):
        shown = VARIANT.findall(asked)
        if shown:
            texts = [text for _, text in shown]
            self.ranked.append(texts)
            given = self.rank(texts)
            scores = [{"variant": int(n), "score": score_of(text)} for n, text in shown]
            usual = json.dumps({"scores": scores[::-1]})
        else:
            parent = (RESPONSE.search(asked) or REQUEST.search(asked))[1]
            self.evolved.append(parent)
            given = self.evolve(parent)
            usual = f"<evolved>\n{parent} and more\n</evolved>"
        if isinstance(given, web.Response):
            return given
        if isinstance(given, dict):
            return web.json_response(given)
        return web.json_response(completion(usual if given is None else given))
