"""Taggers that ask a language model: an Arrow batch of queries in, their tags out."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tagsieve.engines.actors import Counts
from tagsieve.engines.llm.asking import llm_engine, prompt_fingerprint
from tagsieve.engines.llm.prompts import PromptTemplate, load_prompt
from tagsieve.engines.llm.replies import ENGINE_DIED, UNPARSEABLE, Answer, NotAsked, Refusal
from tagsieve.engines.microbatch import failure
from tagsieve.tagging.config import HttpTaggerConfig, RecordedTaggerConfig, VllmTaggerConfig
from tagsieve.tagging.replies import parse_tags
from tagsieve.tagging.rows import tagged_rows

QUERY_TRUNCATED = "query_truncated"
"""Flag of a row whose query lost its middle."""

LlmConfig = VllmTaggerConfig | HttpTaggerConfig | RecordedTaggerConfig


def prompt_of(config: LlmConfig) -> PromptTemplate:
    """The prompt that the config names; UsageError when it cannot be used."""
    return load_prompt(config.prompt, ("query",))


def llm_fingerprint(config: LlmConfig) -> str:
    """A readable name and a hash of all that decides the tagger's answers."""
    limits = [config.overlong, config.max_tags, config.max_tag_words]
    return prompt_fingerprint(config, prompt_of(config), *limits)


def answer_schema(config: LlmConfig) -> dict[str, Any]:
    """JSON Schema of an answer, for engines that can hold a model to it.

    Vendors want an object at the top, so over HTTP the list lies below `tags`.
    """
    local = isinstance(config, VllmTaggerConfig)  # vendors take no limits of length
    item = {
        "type": "object",
        "properties": {
            "tag": {"type": "string"} | ({"maxLength": 100} if local else {}),
            "explanation": {"type": "string"} | ({"maxLength": 400} if local else {}),
        },
        "required": ["tag", "explanation"],
        "additionalProperties": False,
    }
    listed = {"type": "array", "items": item}
    if local:
        return listed | {"maxItems": config.max_tags}
    return {
        "type": "object",
        "properties": {"tags": listed},
        "required": ["tags"],
        "additionalProperties": False,
    }


class LlmTagger:
    """A Ray actor. Reads `query_id`, `text`; gives the rows of `raw_tags` and `failure`.

    Chunks are answered side by side, so the engine's batch stays full while one of them ends. A
    query that was not asked, because the budget is spent, has no row. `setting`: what the config is
    in the recipe, for messages.
    """

    def __init__(self, config: LlmConfig, tagger: str, run_id: str, setting: str = "tag") -> None:
        self._config, self._tagger, self._run_id = config, tagger, run_id
        cut = "query" if config.overlong == "truncate" else None
        template, schema = prompt_of(config), answer_schema(config)
        self._engine = llm_engine(config, template, schema, cut, setting)

    async def start(self, counted: Counts) -> None:
        """Load the model, or open the client."""
        await self._engine.start(counted)

    async def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """One row per query that was asked, in the order of the batch, and what was counted."""
        texts = batch["text"].to_pylist()
        answers, counts = await self._engine.answer([{"query": text} for text in texts])
        ids = batch["query_id"].to_pylist()
        rows = [
            self._row(query_id, text, answer)
            for query_id, text, answer in zip(ids, texts, answers, strict=True)
            if not isinstance(answer, NotAsked)
        ]
        return tagged_rows(self._tagger, self._run_id, rows), counts

    def _row(self, query_id: str, text: str, answer: Answer) -> dict[str, Any]:
        if isinstance(answer, Refusal):
            told = failure(self._tagger, query_id, answer.reason, answer.error, text)
            return {"query_id": query_id, "failure": told}
        assert not isinstance(answer, NotAsked)
        config = self._config
        parsed = parse_tags(answer.text, answer.cut, config.max_tags, config.max_tag_words)
        if parsed.error is not None:
            told = failure(self._tagger, query_id, UNPARSEABLE, parsed.error, answer.text)
            return {"query_id": query_id, "failure": told}
        cut = [QUERY_TRUNCATED] if answer.prompt_cut else []
        return {
            "query_id": query_id,
            "tags": [{"tag": tag, "explanation": why} for tag, why in parsed.tags],
            "flags": cut + parsed.flags,
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
        }


def killed_by(tagger: str, run_id: str, row: pa.Table, error: str) -> pa.Table:
    """The result for a query of which the engine dies."""
    query = row.to_pylist()[0]
    told = failure(tagger, query["query_id"], ENGINE_DIED, error, query["text"])
    return tagged_rows(tagger, run_id, [{"query_id": query["query_id"], "failure": told}])
