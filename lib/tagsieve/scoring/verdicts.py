"""What a judge wrote, read as a number; whatever it wrote, nothing here raises and nothing is
guessed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tagsieve.engines.llm.replies import UNPARSEABLE, after_thoughts
from tagsieve.scoring.rows import Unscorable

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
class Scale:
    """Numbers from `low` to `high` in steps of 0.5."""

    low: int
    high: int

    @property
    def values(self) -> list[float]:
        """All of them."""
        halves = range(2 * self.low, 2 * self.high + 1)
        return [half / 2 if half % 2 else half // 2 for half in halves]


def read_score(text: str, scale: Scale) -> float | Unscorable:
    """The score in an answer: a JSON object with `score` and no other number around it, or a number
    alone (`7`, `Score: 7`, `7/10`)."""
    text = _body(text)
    number: Any = _bare(text, scale)
    if number is None:
        found, outside = _object(text)
        if found is None or any(sign.isdigit() for sign in outside):
            return Unscorable(UNPARSEABLE, "the answer is not one JSON object with a score")
        number = found.get("score")
        if isinstance(number, str):
            number = _bare(number, scale)
    if not _is_number(number):
        return Unscorable(UNPARSEABLE, "the answer has no number as its score")
    if not scale.low <= number <= scale.high:
        return Unscorable(
            OUT_OF_RANGE, f"the score is {number}, outside of {scale.low} to {scale.high}"
        )
    if number * 2 % 1:
        return Unscorable(OFF_SCALE, f"the score is {number}, and the scale has steps of 0.5")
    return float(number)


def read_nodes(text: str, max_nodes: int) -> int | Unscorable:
    """How many distinct nodes the tree in an answer has: a JSON object with `nodes`, each of them
    with `id`, `parent` (an earlier node's id, 0 of the root) and `node` (its words). Nodes with the
    same words below the same node are one."""
    found, _ = _object(_body(text))
    nodes = None if found is None else found.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        return Unscorable(UNPARSEABLE, "the answer is not one JSON object with a list of nodes")
    return _distinct(nodes, max_nodes)


def _distinct(nodes: Sequence[Any], max_nodes: int) -> int | Unscorable:
    place: dict[Any, int] = {0: 0}
    distinct: dict[tuple[int, str], int] = {}
    for number, node in enumerate(nodes, start=1):
        told = node if isinstance(node, dict) else {}
        own, parent, words = (told.get(key) for key in ("id", "parent", "node"))
        if not (_is_whole(own) and _is_whole(parent) and isinstance(words, str) and words.strip()):
            return Unscorable(UNPARSEABLE, f"node {number} of the answer lacks id, parent or node")
        if own in place:
            return Unscorable(UNPARSEABLE, f"two nodes of the answer have the id {own}")
        if parent not in place or (parent == 0) != (number == 1):
            return Unscorable(UNPARSEABLE, f"the answer is no tree: node {own} is below {parent}")
        key = (place[parent], " ".join(words.casefold().split()))
        place[own] = distinct.setdefault(key, len(distinct) + 1)
    if len(distinct) > max_nodes:
        return Unscorable(
            OUT_OF_RANGE, f"the tree has {len(distinct)} nodes, more than max_nodes={max_nodes}"
        )
    return len(distinct)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _body(text: str) -> str:
    """What is to be read: nothing of an answer that is too long."""
    return "" if len(text) > LONGEST else after_thoughts(text.strip().strip("\ufeff\u200b").strip())


def _bare(text: str, scale: Scale) -> float | None:
    """The number of a text that is nothing else; None where it is, or is of another scale."""
    found = _BARE.fullmatch(text.strip(_MARKDOWN))
    if found is None or found[2] not in (None, str(scale.high)):
        return None
    return float(found[1])


def _object(text: str) -> tuple[dict[str, Any] | None, str]:
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


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found
