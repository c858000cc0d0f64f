"""What a judge wrote, read as numbers; whatever it wrote, nothing here raises and nothing is
guessed."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from tagsieve.engines.llm.replies import UNPARSEABLE, after_thoughts

OUT_OF_RANGE = "out_of_range"
"""The answer is a number outside of the scale, or a tree with too many nodes."""

OFF_SCALE = "off_scale"
"""The answer is a number between two steps of the scale."""

LONGEST = 64_000
"""Characters of an answer that is read. None that was asked for is as long; a loop is."""

_BARE = re.compile(
    r"(?:(?:score|rating|grade)\s*[:=]\s*)?(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)"
    r"(?:\s*(?:/|out of)\s*([0-9]{1,6}))?\.?",
    re.IGNORECASE,
)
"""An answer that is a number and nothing else, with its name or with the end of the scale."""

_MARKDOWN = " \t\r\n*`\"'"


@dataclass(frozen=True)
class Unread:
    """Why an answer says nothing: `reason` for the quarantine, `error` for a person."""

    reason: str
    error: str


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high` in steps of 0.5."""

    low: int
    high: int

    @property
    def values(self) -> list[float]:
        """All of them."""
        halves = range(2 * self.low, 2 * self.high + 1)
        return [half / 2 if half % 2 else half // 2 for half in halves]

    def check(self, number: float) -> Unread | None:
        """What is wrong with a number."""
        if not self.low <= number <= self.high:
            return Unread(
                OUT_OF_RANGE, f"the score is {number}, outside of {self.low} to {self.high}"
            )
        if number * 2 % 1:
            return Unread(OFF_SCALE, f"the score is {number}, and the scale has steps of 0.5")
        return None


def read_score(text: str, scale: Scale) -> float | Unread:
    """The score in an answer: a JSON object with `score` and no other number around it, or a number
    alone (`7`, `Score: 7`, `7/10`)."""
    text = body(text)
    number: Any = _bare(text, scale)
    if number is None:
        found, outside = only_object(text)
        if found is None or any(sign.isdigit() for sign in outside):
            return Unread(UNPARSEABLE, "the answer is not one JSON object with a score")
        number = found.get("score")
        if isinstance(number, str):
            number = _bare(number, scale)
    if not is_number(number):
        return Unread(UNPARSEABLE, "the answer has no number as its score")
    return scale.check(number) or float(number)


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (isinstance(value, float) and math.isfinite(value))


def body(text: str) -> str:
    """What is to be read: nothing of an answer that is too long."""
    return "" if len(text) > LONGEST else after_thoughts(text.strip().strip("\ufeff\u200b").strip())


def only_object(text: str) -> tuple[dict[str, Any] | None, str]:
    """The only JSON object in a text, None where there is none or more than one, and what stands
    around it. Raises nothing, however deep or odd it is."""
    start, end = text.find("{"), text.rfind("}") + 1
    if start < 0 or end <= start:
        return None, text
    try:
        found = json.loads(text[start:end], object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError):
        return None, text
    return found, text[:start] + text[end:]


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an object with these properties, all of them and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _bare(text: str, scale: Scale) -> float | None:
    """The number of a text that is nothing else; None where it is, or is of another scale."""
    found = _BARE.fullmatch(text.strip(_MARKDOWN))
    if found is None or found[2] not in (None, str(scale.high)):
        return None
    return float(found[1])


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found
