"""Scorers that ask a model, as a Ray actor: an Arrow batch of turns in, their scores out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import repeat
from typing import Any

import pyarrow as pa

from tagsieve.engines.actors import Counts
from tagsieve.engines.encoders import Array
from tagsieve.engines.llm.replies import ENGINE_DIED
from tagsieve.engines.logprobs import LogprobEngine, Question
from tagsieve.scoring.config import DeitaConfig, ModelScorerConfig
from tagsieve.scoring.deita import DeitaScorer
from tagsieve.scoring.losses import LossScorer
from tagsieve.scoring.rows import NAN_SCORE, Asked, Turn, Unscorable, failed, scored_rows
from tagsieve.scoring.tokens import Tokens


class ModelScorer:
    """A Ray actor. Reads `TURN_COLUMNS`; gives the rows of `scores` and `failure`.

    `scorers`: the config of each fingerprint. All share one model: what several ask of it, for a
    turn or for equal texts of a chunk, it is asked once.
    """

    def __init__(
        self, engine: LogprobEngine, scorers: Mapping[str, ModelScorerConfig], run_id: str
    ) -> None:
        self._engine, self._configs, self._run_id = engine, scorers, run_id

    async def start(self, counted: Counts) -> None:  # noqa: ARG002
        """Load the model."""
        await self._engine.start()
        self._tokens = Tokens(self._engine.tokenizer)
        self._scorers = {name: self._scorer(config) for name, config in self._configs.items()}

    def _scorer(self, config: ModelScorerConfig) -> DeitaScorer | LossScorer:
        longest = self._engine.max_tokens
        if isinstance(config, DeitaConfig):
            return DeitaScorer(config, self._engine.tokenizer, longest)
        return LossScorer(config, self._tokens, longest)

    async def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """One row per turn and scorer, and what was counted."""
        turns = [Turn.of(row) for row in batch.to_pylist()]
        asked: list[tuple[Turn, str, Asked | Unscorable]] = []
        for name, scorer in self._scorers.items():
            mine = [turn for turn in turns if name in turn.scorers]
            asked += zip(mine, repeat(name), scorer.ask(mine), strict=False)
        self._tokens.forget()
        questions = dict.fromkeys(
            question
            for _, _, found in asked
            if isinstance(found, Asked)
            for question in found.questions
        )
        given = await self._engine.answer(list(questions))
        answers = dict(zip(questions, given, strict=True))
        rows = [self._row(turn, name, found, answers) for turn, name, found in asked]
        counts = {
            "model_calls": float(len(questions)),
            "tokens": float(sum(len(question.tokens) for question in questions)),
        }
        return scored_rows(self._run_id, rows), counts

    def _row(
        self, turn: Turn, name: str, asked: Asked | Unscorable, answers: Mapping[Question, Array]
    ) -> dict[str, Any]:
        if isinstance(asked, Unscorable):
            return failed(turn, name, asked)
        value = self._scorers[name].value([answers[question] for question in asked.questions])
        if not math.isfinite(value):
            return failed(turn, name, Unscorable(NAN_SCORE, f"the score is {value}"))
        return {
            "sample_id": turn.sample_id,
            "turn": turn.turn,
            "scorer": name,
            "value": value,
            "tokens": asked.tokens,
            "flags": list(asked.flags),
        }


def killed_by(run_id: str, row: pa.Table, error: str) -> pa.Table:
    """The result for a turn of which the engine dies."""
    turn = Turn.of(row.to_pylist()[0])
    why = Unscorable(ENGINE_DIED, error)
    return scored_rows(run_id, [failed(turn, name, why) for name in sorted(turn.scorers)])
