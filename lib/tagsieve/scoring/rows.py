"""Rows of `scores`, each with its failure if it has one, and what is asked for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tagsieve.engines.llm.verdicts import Unread
from tagsieve.engines.logprobs import Question
from tagsieve.engines.microbatch import FAILURE
from tagsieve.lake import TABLES

SCORED = TABLES["scores"].schema.append(pa.field("failure", FAILURE))

NO_RESPONSE = "no_response"
"""A turn without an assistant's reply, for a scorer that reads it."""

EMPTY_TEXT = "empty_text"
"""The text that a loss is wanted of has no token."""

REFUSED = "refused"
"""The model's chat template does not take this conversation."""

NAN_SCORE = "nan_score"
"""The model gave no finite number."""

TRUNCATED = "truncated"
"""Flag of a score whose text was cut to the model's length."""


@dataclass(frozen=True)
class Turn:
    """One human turn and its reply (None: there is none).

    `earlier`: role and content of all turns before it, where a scorer asks for them. `scorers`: by
    which it is to be scored.
    """

    sample_id: str
    turn: int
    instruction: str
    response: str | None
    earlier: tuple[tuple[str, str], ...]
    scorers: frozenset[str]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Turn:
        """From a row that Spark handed over."""
        earlier = tuple((turn["role"], turn["content"]) for turn in row["earlier"] or ())
        given = {name: row[name] for name in ("sample_id", "turn", "instruction", "response")}
        return cls(**given, earlier=earlier, scorers=frozenset(row["scorers"]))

    @property
    def text(self) -> str:
        """Instruction and response, for the quarantine."""
        return "\n\n".join(filter(None, (self.instruction, self.response)))


@dataclass(frozen=True)
class Asked:
    """What one score needs of a model, and how many tokens it is of."""

    questions: tuple[Question, ...]
    tokens: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unscorable:
    """Why a turn has no score: `reason` for the quarantine, `error` for a person."""

    reason: str
    error: str


def scored_rows(run_id: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of one run as Arrow; missing columns are null."""
    return pa.Table.from_pylist([{**row, "run_id": run_id} for row in rows], schema=SCORED)


def failed(
    turn: Turn, scorer: str, why: Unscorable | Unread, payload: str | None = None
) -> dict[str, Any]:
    """The row of a turn that has no score; `payload`: what is kept of it, its text by default."""
    failure = {
        "key": f"{scorer} {turn.sample_id} {turn.turn}",
        "reason": why.reason,
        "error": why.error[:2000],
        "payload": (turn.text if payload is None else payload).encode("utf-8", "surrogatepass"),
    }
    return {
        "sample_id": turn.sample_id,
        "turn": turn.turn,
        "scorer": scorer,
        "failure": failure,
    }
