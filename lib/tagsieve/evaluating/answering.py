"""The model that answers: questions in, `generations` out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pyarrow as pa

from tagsieve.engines.actors import ActorSpec, Counts
from tagsieve.engines.config import RayConfig
from tagsieve.engines.llm.asking import check_llm, llm_actors, llm_engine, prompt_fingerprint
from tagsieve.engines.llm.config import LlmConfig
from tagsieve.engines.llm.prompts import PromptTemplate, load_prompt
from tagsieve.engines.llm.replies import (
    CUT_BY,
    ENGINE_DIED,
    UNPARSEABLE,
    Answer,
    NotAsked,
    Refusal,
    Reply,
    after_thoughts,
)
from tagsieve.engines.microbatch import FAILURE, failure
from tagsieve.lake import TABLES
from tagsieve.ledger import fingerprint

ANSWER = "answer"
"""The kind of these rows of `generations`."""

QUESTION = pa.schema([("generation_id", pa.string()), ("text", pa.string())])
"""What the model is asked."""

ANSWERED = TABLES["generations"].schema.append(pa.field("failure", FAILURE))

SETTING = "evaluate.engine"


@dataclass(frozen=True)
class Model:
    """A model and how it is asked."""

    engine: LlmConfig
    template: PromptTemplate

    @classmethod
    def of(cls, engine: LlmConfig, prompt: str) -> Model:
        """With the prompt of this name or path. Raises UsageError when it cannot be used."""
        return cls(engine, load_prompt(prompt, ("instruction",)))

    @cached_property
    def fingerprint(self) -> str:
        """A readable name and a hash of all that decides the answers. Raises UsageError when the
        model is not there."""
        return prompt_fingerprint(self.engine, self.template, ANSWER)

    @property
    def prompt_id(self) -> str:
        """The prompt's name and a hash of it."""
        return f"{self.template.name}-{fingerprint(self.template.content)[:12]}"

    def generation_id(self, question: str) -> str:
        """The id of the answer to a question: a hash of the model and of it."""
        return hashlib.sha256(f"{self.fingerprint}\n{question}".encode()).hexdigest()[:32]

    def check(self, ray_config: RayConfig) -> None:
        """Refuse what an embedded Ray can be seen to lack. Raises UsageError."""
        assert self.fingerprint
        check_llm(self.engine, ray_config, SETTING)

    def actors(self, run_id: str, ray_config: RayConfig) -> ActorSpec:
        """The actors that answer."""
        killed_by = partial(_killed, self.fingerprint)
        kwargs = {"model": self, "fingerprint": self.fingerprint, "run_id": run_id}
        return llm_actors(self.engine, Answerer, kwargs, killed_by, "evaluate", ray_config)


def _killed(model: str, row: pa.Table, error: str) -> pa.Table:
    """The result for a question of which the engine dies."""
    asked = row.to_pylist()[0]
    failed = _failed(model, asked, ENGINE_DIED, error, asked["text"])
    return pa.Table.from_pylist([failed], schema=ANSWERED)


def _failed(
    model: str, asked: dict[str, Any], reason: str, error: str, payload: str
) -> dict[str, Any]:
    key = asked["generation_id"]
    return {"generation_id": key, "failure": failure(model, key, reason, error, payload)}


class Answerer:
    """A Ray actor. Reads `QUESTION`; gives the rows of `generations` and `failure`.

    Chunks are answered side by side. A question that was not asked, because the budget is spent,
    has no row. Counts answers that ended at the limit of tokens as `cut`.
    """

    def __init__(self, model: Model, fingerprint: str, run_id: str) -> None:
        self._model, self._fingerprint, self._run_id = model, fingerprint, run_id
        # Nothing is cut: what is left of a question would be another one.
        self._engine = llm_engine(model.engine, model.template, None, None, SETTING)

    async def start(self, counted: Counts) -> None:
        """Load the model, or open the client."""
        await self._engine.start(counted)

    async def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """One row per question that was asked, in the order of the batch, and the counts."""
        asked = batch.to_pylist()
        answers, counts = await self._engine.answer([{"instruction": row["text"]} for row in asked])
        rows = [
            self._row(row, answer)
            for row, answer in zip(asked, answers, strict=True)
            if not isinstance(answer, NotAsked)
        ]
        cut = sum(isinstance(answer, Reply) and answer.cut for answer in answers)
        return pa.Table.from_pylist(rows, schema=ANSWERED), counts | {"cut": float(cut)}

    def _row(self, asked: dict[str, Any], answer: Answer) -> dict[str, Any]:
        if isinstance(answer, Refusal):
            return _failed(self._fingerprint, asked, answer.reason, answer.error, asked["text"])
        assert not isinstance(answer, NotAsked)
        text = after_thoughts(answer.text)
        if not text.strip():
            told = "the answer is empty"
            if answer.cut:
                told = f"the answer was cut before it began: raise {CUT_BY}"
            return _failed(self._fingerprint, asked, UNPARSEABLE, told, answer.text)
        return {
            "generation_id": asked["generation_id"],
            "kind": ANSWER,
            "prompt_id": self._model.prompt_id,
            "model": self._fingerprint,
            "text": text,
            "run_id": self._run_id,
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
        }
