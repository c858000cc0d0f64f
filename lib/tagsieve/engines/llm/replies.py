"""What a language model gives back for one prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """An answer. `cut`: it ended at the limit of tokens; tokens are None where nobody counted."""

    text: str
    cut: bool = False
    prompt_cut: bool = False
    prompt_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class Refusal:
    """No answer: `reason` for the quarantine, `error` in the engine's own words."""

    reason: str
    error: str


@dataclass(frozen=True)
class NotAsked:
    """The budget was spent before this prompt."""


Answer = Reply | Refusal | NotAsked

REFUSED = "refused"
"""The engine does not take this prompt (a 400, a content filter); others may pass."""

ENDPOINT = "endpoint"
"""No answer in all tries: lost connections, timeouts, 5xx, broken bodies."""

UNPARSEABLE = "unparseable"
"""The answer is there, and what was asked for cannot be read from it."""

OVERLONG = "overlong"
"""The prompt is longer than the model's context, and it was not to be cut."""

CUT_BY = "engine.decoding.max_tokens"
"""The setting at which an answer was cut."""

ENGINE_DIED = "engine_died"
"""The engine died of this prompt, and again when it had no other."""


def storable(text: str) -> str:
    """Text that a table can hold: JSON can name half of a character, which is no UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def after_thoughts(text: str) -> str:
    """An answer without what a reasoning model thought before; nothing when it never came to an
    end."""
    if text.startswith(("[", "{")):
        return text
    text = text.rpartition("</think>")[2].strip()
    return "" if text.startswith("<think>") else text
