"""Scorers that ask a judge: a Ray actor with an Arrow batch of turns in, their scores out."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa

from tagsieve.engines.actors import ActorSpec, Counts
from tagsieve.engines.config import RayConfig
from tagsieve.engines.llm.asking import check_llm, llm_actors, llm_engine, llm_identity
from tagsieve.engines.llm.config import VllmConfig
from tagsieve.engines.llm.prompts import PromptTemplate, load_prompt
from tagsieve.engines.llm.replies import CUT_BY, UNPARSEABLE, Answer, NotAsked, Refusal, Reply
from tagsieve.engines.llm.verdicts import Scale, Unread, closed, read_score
from tagsieve.ledger import fingerprint
from tagsieve.scoring.config import DirectConfig, JudgeScorerConfig
from tagsieve.scoring.models import killed_by
from tagsieve.scoring.nodes import read_nodes
from tagsieve.scoring.rows import NO_RESPONSE, TRUNCATED, Turn, Unscorable, failed, scored_rows

SCALES = {"complexity": Scale(1, 10), "quality": Scale(0, 5)}
"""Of direct scoring: those of DEITA's tables 11 and 15."""


def judge_fingerprint(config: JudgeScorerConfig) -> str:
    """What is judged, and a hash of all that decides the judge's answers. Raises UsageError when
    its model or its prompt is not there."""
    what = f"direct-{config.what}" if isinstance(config, DirectConfig) else config.kind
    own = None if isinstance(config, DirectConfig) else config.max_nodes
    judge = [config.engine.kind, *llm_identity(config.engine)]
    content = judge_prompt(config).content
    return f"{what}-{fingerprint(what, judge, config.overlong, content, own)[:12]}"


def judge_prompt(config: JudgeScorerConfig) -> PromptTemplate:
    """The prompt of a judge; UsageError when it cannot be used."""
    if isinstance(config, DirectConfig):
        return load_prompt(config.prompt or f"judge_{config.what}", _fields(config))
    return load_prompt(config.prompt, _fields(config))


def _fields(config: JudgeScorerConfig) -> tuple[str, ...]:
    """What a judge reads of a turn; the last of it may lose its middle."""
    quality = isinstance(config, DirectConfig) and config.what == "quality"
    return ("instruction", "response") if quality else ("instruction",)


def check_judge(config: JudgeScorerConfig, ray_config: RayConfig) -> None:
    """Refuse what an embedded Ray can be seen to lack. Raises UsageError."""
    check_llm(config.engine, ray_config, _setting(config))


def _setting(config: JudgeScorerConfig) -> str:
    return f"score.scorers {config.name}: engine"


def answer_schema(config: JudgeScorerConfig) -> dict[str, Any]:
    """JSON Schema of an answer, for engines that can hold a model to it."""
    if isinstance(config, DirectConfig):
        return closed({"score": {"type": "number", "enum": SCALES[config.what].values}})
    local = isinstance(config.engine, VllmConfig)  # vendors take no limits of length
    words = {"type": "string"} | ({"maxLength": 100} if local else {})
    node = closed({"id": {"type": "integer"}, "parent": {"type": "integer"}, "node": words})
    nodes = {"type": "array", "items": node} | ({"maxItems": config.max_nodes} if local else {})
    return closed({"nodes": nodes})


class JudgeScorer:
    """A Ray actor. Reads `TURN_COLUMNS`; gives the rows of `scores` and `failure`.

    Chunks are judged side by side; what is asked of equal texts of a chunk is asked once. A turn
    that was not asked about, because the budget is spent, has no row.
    """

    def __init__(self, config: JudgeScorerConfig, scorer: str, run_id: str) -> None:
        self._config, self._scorer, self._run_id = config, scorer, run_id
        self._fields = _fields(config)
        cut = self._fields[-1] if config.overlong == "truncate" else None
        self._engine = llm_engine(
            config.engine, judge_prompt(config), answer_schema(config), cut, _setting(config)
        )

    async def start(self, counted: Counts) -> None:
        """Load the model, or open the client."""
        await self._engine.start(counted)

    async def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """One row per turn that was asked about, in the order of the batch, and what was
        counted."""
        turns = [Turn.of(row) for row in batch.to_pylist()]
        texts = dict.fromkeys(read for turn in turns if None not in (read := self._read(turn)))
        prompts = [dict(zip(self._fields, text, strict=True)) for text in texts]
        given, counts = await self._engine.answer(prompts)
        answers = dict(zip(texts, given, strict=True))
        rows = [self._row(turn, answers.get(self._read(turn))) for turn in turns]
        return scored_rows(self._run_id, [row for row in rows if row is not None]), counts

    def _read(self, turn: Turn) -> tuple[Any, ...]:
        """What the judge reads of a turn, None in it where the turn lacks it."""
        return tuple(getattr(turn, field) for field in self._fields)

    def _row(self, turn: Turn, answer: Answer | None) -> dict[str, Any] | None:
        """The row of a turn; `answer` is None where it lacks what the judge reads."""
        if isinstance(answer, NotAsked):
            return None
        if answer is None:
            return failed(turn, self._scorer, Unscorable(NO_RESPONSE, "the turn has no reply"))
        if isinstance(answer, Refusal):
            return failed(turn, self._scorer, Unscorable(answer.reason, answer.error))
        value = self._value(answer)
        if isinstance(value, Unread):
            return failed(turn, self._scorer, value, answer.text)
        return {
            "sample_id": turn.sample_id,
            "turn": turn.turn,
            "scorer": self._scorer,
            "value": value,
            "tokens": answer.prompt_tokens,
            "flags": [TRUNCATED] if answer.prompt_cut else [],
        }

    def _value(self, answer: Reply) -> float | Unread:
        config = self._config
        if answer.cut:  # of a number, too, the rest may be missing
            return Unread(UNPARSEABLE, f"the answer was cut: raise {CUT_BY}")
        if isinstance(config, DirectConfig):
            return read_score(answer.text, SCALES[config.what])
        return read_nodes(answer.text, config.max_nodes)


def judges_of(
    config: JudgeScorerConfig, scorer: str, run_id: str, ray_config: RayConfig
) -> ActorSpec:
    """The actors of a scorer."""
    arguments = {"config": config, "scorer": scorer, "run_id": run_id}
    killed = partial(killed_by, run_id)
    return llm_actors(config.engine, JudgeScorer, arguments, killed, "score", ray_config)
