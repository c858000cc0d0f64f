"""Asking a judge: how each kind of question is put, who asks it, and how answers are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import pyarrow as pa

from tagsieve.engines.actors import ActorSpec, Counts
from tagsieve.engines.config import RayConfig
from tagsieve.engines.llm.asking import check_llm, llm_actors, llm_engine, prompt_fingerprint
from tagsieve.engines.llm.config import LlmConfig, VllmConfig
from tagsieve.engines.llm.prompts import PromptTemplate, load_prompt
from tagsieve.engines.llm.replies import (
    CUT_BY,
    ENGINE_DIED,
    UNPARSEABLE,
    Answer,
    NotAsked,
    Refusal,
    Reply,
)
from tagsieve.engines.llm.verdicts import Scale, Unread, closed
from tagsieve.engines.microbatch import FAILURE, failure
from tagsieve.judging.config import ScaleName
from tagsieve.judging.verdicts import read_pair, read_skills, read_winner, read_wrong
from tagsieve.lake import TABLES

Kind = Literal["pair", "precision", "consistency", "skills"]

QUESTION = pa.schema(
    [
        ("judgement_id", pa.string()),
        ("group_id", pa.string()),
        ("criterion", pa.string()),
        ("ids", pa.list_(pa.string())),
        ("fields", pa.map_(pa.string(), pa.string())),
    ]
)
"""What a judge is asked: `ids` of what is judged, in the order in which it is shown, and the
`fields` of the prompt. `group_id`, `criterion`: as of `judgements`."""

JUDGED = TABLES["judgements"].schema.append(pa.field("failure", FAILURE))

_FIELDS: dict[Kind, tuple[str, ...]] = {
    "pair": ("first", "second"),
    "precision": ("query", "tags"),
    "consistency": ("tag", "queries"),
    "skills": ("question", "response", "skills"),
}

SKILL_SCALE = Scale(1, 5)


@dataclass(frozen=True)
class Asker:
    """A judge for one kind of question.

    `setting`: what the engine is in the recipe. `scale`: of pairs, else None.
    """

    kind: Kind
    engine: LlmConfig
    template: PromptTemplate
    setting: str
    scale: ScaleName | None = None

    @classmethod
    def of(
        cls,
        kind: Kind,
        engine: LlmConfig,
        prompt: str,
        setting: str,
        scale: ScaleName | None = None,
    ) -> Asker:
        """With the prompt of this name or path. Raises UsageError when it cannot be used."""
        template = load_prompt(prompt, _FIELDS[kind])
        if scale is not None:
            template = template.given({"high": str(scale)})
        return cls(kind, engine, template, setting, scale)

    @cached_property
    def judge(self) -> str:
        """A readable name and a hash of all that decides the judgements. Raises UsageError when the
        model is not there."""
        return prompt_fingerprint(self.engine, self.template, self.kind, self.scale)

    def check(self, ray_config: RayConfig) -> None:
        """Refuse what an embedded Ray can be seen to lack. Raises UsageError."""
        assert self.judge
        check_llm(self.engine, ray_config, self.setting)

    def actors(self, run_id: str, ray_config: RayConfig) -> ActorSpec:
        """The actors that ask."""
        killed_by = partial(_killed, self.judge)
        kwargs = {"asker": self, "judge": self.judge, "run_id": run_id}
        return llm_actors(self.engine, Judge, kwargs, killed_by, "judge", ray_config)

    def read(self, answer: Reply, ids: Sequence[str]) -> Sequence[float] | Unread:
        """The score of each of `ids` in an answer. Of one that was cut, only the two scores on its
        first line count: what else it says could have gone on."""
        text = answer.text
        if answer.cut:
            first, more, _ = text.partition("\n")
            pair = self.kind == "pair" and self.scale != "winner" and more
            found = self._read(first, ids) if pair else Unread(UNPARSEABLE, "nothing can be read")
            if isinstance(found, Unread):
                return replace(found, error=f"{found.error}; the answer was cut: raise {CUT_BY}")
            return found
        return self._read(text, ids)

    def _read(self, text: str, ids: Sequence[str]) -> Sequence[float] | Unread:
        if self.kind == "skills":
            return read_skills(text, ids, SKILL_SCALE)
        if self.kind != "pair":
            return read_wrong(text, len(ids))
        if self.scale == "winner":
            winner = read_winner(text)
            if isinstance(winner, Unread):
                return winner
            return {"A": (1.0, 0.0), "B": (0.0, 1.0), "tie": (0.5, 0.5)}[winner]
        assert self.scale is not None
        # Asked for 1 to 10, judges also say 0: published logs have it.
        return read_pair(text, Scale(0, self.scale))

    def schema(self) -> dict[str, Any]:
        """JSON Schema of an answer, for engines that can hold a model to it."""
        local = isinstance(self.engine, VllmConfig)  # vendors take no limits of length
        if self.kind == "skills":
            score = {"type": "integer", "enum": [1, 2, 3, 4, 5]}
            one = closed({"skill": {"type": "string"}, "score": score})
            return closed({"scores": {"type": "array", "items": one}})
        if self.kind != "pair":
            return closed({"wrong": {"type": "array", "items": {"type": "integer"}}})
        if self.scale == "winner":
            return closed({"winner": {"type": "string", "enum": ["A", "B", "C"]}})
        assert self.scale is not None
        told = {"type": "string"} | ({"maxLength": 1000} if local else {})
        score = {"type": "integer", "enum": list(range(1, self.scale + 1))}
        return closed({"feedback": told, "first": score, "second": score})


def _killed(judge: str, row: pa.Table, error: str) -> pa.Table:
    """The result for a question of which the engine dies."""
    asked = _questions(row)[0]
    return pa.Table.from_pylist([_failed(judge, asked, ENGINE_DIED, error)], schema=JUDGED)


def _questions(batch: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = batch.to_pylist(maps_as_pydicts="strict")
    return found


def _failed(
    judge: str, asked: dict[str, Any], reason: str, error: str, text: str | None = None
) -> dict[str, Any]:
    payload = "\n\n".join(asked["fields"].values()) if text is None else text
    told = failure(judge, asked["judgement_id"], reason, error, payload)
    return {"judgement_id": asked["judgement_id"], "failure": told}


class Judge:
    """A Ray actor. Reads `QUESTION`; gives the rows of `judgements` and `failure`.

    Chunks are answered side by side. A question that was not asked, because the budget is spent,
    has no row.
    """

    def __init__(self, asker: Asker, judge: str, run_id: str) -> None:
        self._asker, self._judge, self._run_id = asker, judge, run_id
        # Nothing is cut: what is left of one of two texts could not be compared.
        self._engine = llm_engine(asker.engine, asker.template, asker.schema(), None, asker.setting)

    async def start(self, counted: Counts) -> None:
        """Load the model, or open the client."""
        await self._engine.start(counted)

    async def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """One row per question that was asked, in the order of the batch, and the counts."""
        asked = _questions(batch)
        answers, counts = await self._engine.answer([row["fields"] for row in asked])
        rows = [
            self._row(row, answer)
            for row, answer in zip(asked, answers, strict=True)
            if not isinstance(answer, NotAsked)
        ]
        return pa.Table.from_pylist(rows, schema=JUDGED), counts

    def _row(self, asked: dict[str, Any], answer: Answer) -> dict[str, Any]:
        if isinstance(answer, Refusal):
            return _failed(self._judge, asked, answer.reason, answer.error)
        assert not isinstance(answer, NotAsked)
        scores = self._asker.read(answer, asked["ids"])
        if isinstance(scores, Unread):
            return _failed(self._judge, asked, scores.reason, scores.error, answer.text)
        return {
            "judgement_id": asked["judgement_id"],
            "kind": self._asker.kind,
            "group_id": asked["group_id"],
            "items": [
                {"id": key, "position": position, "score": score}
                for position, (key, score) in enumerate(zip(asked["ids"], scores, strict=True))
            ],
            "criterion": asked["criterion"],
            "judge": self._judge,
            "raw": answer.text,
            "run_id": self._run_id,
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
        }
