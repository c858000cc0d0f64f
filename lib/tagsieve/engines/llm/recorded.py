"""Answers that were given before, from a file: what a judge or a tagger once said, read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tagsieve.engines.actors import Counts
from tagsieve.engines.llm.config import RecordedConfig
from tagsieve.engines.llm.replies import Answer, Refusal, Reply, storable
from tagsieve.errors import UsageError

NOT_RECORDED = "not_recorded"
"""The file has no answer to this prompt."""

ANSWER = "answer"
"""Key of the answer in a line; the others are the fields of the prompt."""


def identity(config: RecordedConfig) -> list[Any]:
    """What decides the answers, for a fingerprint: whose they are."""
    return [config.model]


def check_recorded(config: RecordedConfig, setting: str) -> None:
    """Raise UsageError where the file is not there. `setting`: what the config is in the recipe."""
    import fsspec

    files, path = fsspec.core.url_to_fs(config.path)
    if not files.exists(path):
        raise UsageError(f"{setting}.path={config.path}: no such file")


class RecordedEngine:
    """Gives the recorded answer to each prompt; holds the answers in memory, and of each prompt 16
    bytes."""

    def __init__(self, config: RecordedConfig, setting: str) -> None:
        self._config, self._setting = config, setting

    async def start(self, counted: Counts) -> None:  # noqa: ARG002
        """Read the file. Raises UsageError for a line that is no recorded answer."""
        import fsspec

        self._answers: dict[bytes, str] = {}
        path = self._config.path
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self._add(line, f"{self._setting}.path={path}, line {number}")

    def _add(self, line: str, place: str) -> None:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{place}: not JSON: {error}") from error
        texts = isinstance(record, dict) and all(isinstance(v, str) for v in record.values())
        if not texts or ANSWER not in record:
            raise UsageError(
                f'{place}: expected an object of texts: the fields of the prompt, and "{ANSWER}"'
            )
        answer = storable(record.pop(ANSWER))
        known = self._answers.setdefault(_key(record), answer)
        if known != answer:
            raise UsageError(f"{place}: another answer to a prompt of an earlier line")

    async def answer(
        self, prompts: Sequence[Mapping[str, str]]
    ) -> tuple[list[Answer], dict[str, float]]:
        """One answer per prompt, in their order, and what was counted: no model call."""
        found: list[Answer] = []
        for prompt in prompts:
            text = self._answers.get(_key(prompt))
            told = f"{self._config.path} has no line with these {', '.join(sorted(prompt))}"
            found.append(Refusal(NOT_RECORDED, told) if text is None else Reply(text))
        return found, {"model_calls": 0.0}


def _key(fields: Mapping[str, str]) -> bytes:
    text = json.dumps(dict(fields), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
