"""What a judge wrote of a pair, of tags or of skills, read as scores; whatever it wrote, nothing
here raises and nothing is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from tagsieve.engines.llm.replies import UNPARSEABLE
from tagsieve.engines.llm.verdicts import (
    OUT_OF_RANGE,
    Scale,
    Unread,
    body,
    is_number,
    only_object,
)

CONTRADICTORY = "contradictory"
"""Two scores or winners that the answer gives are not the same."""

INCOMPLETE = "incomplete"
"""Something that was asked about has no score."""

Winner = Literal["A", "B", "tie"]

_NUMBER = r"(-?\d{1,6}(?:\.\d{1,6})?)"
_OF = r"(?:\s*(?:/|out\s+of)\s*(\d{1,6}))?"
_NAME = r"(?:the\s+)?(?:assistant|model|answer|response|ai)?\s*"
_LINE = re.compile(
    rf"(?:(?:output|scores?|ratings?|evaluation)\s*[:=]\s*)?"
    rf"[(\[]?\s*{_NUMBER}{_OF}\s*(?:,|;|\s|\band\b)\s*{_NUMBER}{_OF}\s*[)\]]?\.?",
    re.IGNORECASE,
)
"""A line that is two numbers and nothing else but a name before them."""

_LABELLED = re.compile(
    rf"{_NAME}\b([12AB])\b(?:'s)?(?:\s+(?:answer|response|score))?\s*[:=]\s*"
    rf"(?:score\s*[:=]?\s*)?{_NUMBER}{_OF}\.?(?=\s*(?:\(|$|[,;]\s|-\s|–\s|\.\s))",
    re.IGNORECASE,
)
"""`Assistant 1: 8`, perhaps with a reason in brackets after it."""

_TOLD = re.compile(
    rf"(?:assistant|model|answer|response)\s+([12AB])\b(?:'s\s+\w+)?\s*(?:gets|receives|with|:)?\s*"
    rf"(?:a\s+|the\s+)?(?:score|rating)\s+(?:of|is)\s+{_NUMBER}{_OF}(?!\d)",
    re.IGNORECASE,
)
"""`give Assistant 1 a score of 4 and Assistant 2 a score of 10`."""

_WINNER = re.compile(r"\[\[\s*(A|B|C|tie)\s*\]\]", re.IGNORECASE)

_MARKDOWN = str.maketrans("", "", "*`\"'_#")


def read_pair(text: str, scale: Scale) -> tuple[float, float] | Unread:
    """The scores of the first and the second answer, as they were shown.

    Read from the only JSON object (`first` and `second`, or `scores`, a list of two); else from the
    first line, when it is two numbers; else from every place that says both: lines of two numbers,
    `Assistant 1: 8` with `Assistant 2: 7`, a score of 8 with a score of 7. When the places do not
    agree, or none is there, there is none.
    """
    text = body(text)
    found = _of_object(text)
    if found is None:
        lines = [line.translate(_MARKDOWN).strip() for line in text.splitlines()]
        lines = [line for line in lines if line]
        first = _of_line(lines[0], scale) if lines else None
        places = [first] if first else _places(lines, scale)
        if not places:
            return Unread(UNPARSEABLE, "the answer does not say two scores")
        if len(set(places)) > 1:
            told = ", ".join(f"{a:g} {b:g}" for a, b in sorted(set(places))[:3])
            return Unread(CONTRADICTORY, f"the answer says different scores: {told}")
        found = places[0]
    # Checked first: a number of JSON may be larger than any float.
    return scale.check(found[0]) or scale.check(found[1]) or (float(found[0]), float(found[1]))


def read_winner(text: str) -> Winner | Unread:
    """Which answer is the better one: `[[A]]`, `[[B]]` or `[[C]]` (a tie), however often, or the
    `winner` of the only JSON object; else the last line, when it is 1, 2 or 3 (a tie) alone."""
    text = body(text)
    told, _ = only_object(text)
    if told is not None:
        marks = [str(told.get("winner", "")).strip().upper()]
    else:
        marks = [mark.upper() for mark in _WINNER.findall(text)]
    if not marks:
        lines = text.split()
        last = text.rsplit("\n", 1)[-1].translate(_MARKDOWN).strip(" .[]()")
        marks = [{"1": "A", "2": "B", "3": "C"}.get(last, "")] if lines else []
    winners: set[Winner] = {_WINNERS[mark] for mark in marks if mark in _WINNERS}
    if not winners:
        return Unread(UNPARSEABLE, "the answer does not say which one is better")
    if len(winners) > 1:
        return Unread(CONTRADICTORY, f"the answer says {' and '.join(sorted(winners))}")
    return winners.pop()


def read_wrong(text: str, count: int) -> list[float] | Unread:
    """For each of `count` numbered things 0 where the answer calls it wrong, else 1.

    Read from the list `wrong` of the only JSON object, or from a JSON list alone: the numbers, from
    1, of what is wrong.
    """
    text = body(text)
    told, outside = only_object(text)
    listed = told.get("wrong") if told is not None else _only_list(text)
    if not isinstance(listed, list) or (told is not None and "[" in outside):
        return Unread(UNPARSEABLE, "the answer has no list of what is wrong")
    if not all(is_number(each) and each == int(each) for each in listed):
        return Unread(UNPARSEABLE, "the list has something else than whole numbers")
    beyond = [each for each in listed if not 1 <= each <= count]
    if beyond:
        return Unread(OUT_OF_RANGE, f"the list has {beyond[0]}, outside of 1 to {count}")
    return [0.0 if number in listed else 1.0 for number in range(1, count + 1)]


def read_skills(text: str, skills: Sequence[str], scale: Scale) -> list[float] | Unread:
    """The score of each skill, from the only JSON object: `scores`, a list of objects with `skill`
    and `score`, or a map from skills to scores."""
    told, _ = only_object(body(text))
    listed = None if told is None else told.get("scores", told)
    if isinstance(listed, list):
        pairs = [
            (each.get("skill"), each.get("score")) for each in listed if isinstance(each, dict)
        ]
    elif isinstance(listed, dict):
        pairs = list(listed.items())
    else:
        return Unread(UNPARSEABLE, "the answer is not one JSON object with scores")
    found: dict[str, float] = {}
    for skill, score in pairs:
        name = skill.strip().casefold() if isinstance(skill, str) else ""
        if score is None or not is_number(score):
            return Unread(UNPARSEABLE, f"the score of {name!r:.60} is no number")
        if found.setdefault(name, score) != score:
            return Unread(CONTRADICTORY, f"the answer has two scores of {name!r:.60}")
    lacking = [skill for skill in skills if skill.casefold() not in found]
    if lacking:
        return Unread(INCOMPLETE, f"no score of {lacking[0]}")
    scores = [found[skill.casefold()] for skill in skills]
    wrong = [unread for score in scores if (unread := scale.check(score))]
    return wrong[0] if wrong else list(map(float, scores))


def _only_list(text: str) -> Any:
    """What a text is that is a JSON list and nothing else; None where it is not."""
    try:
        return json.loads(text.strip("` \n"))
    except (ValueError, RecursionError):
        return None


_WINNERS: dict[str, Winner] = {"A": "A", "B": "B", "C": "tie", "TIE": "tie"}


def _of_object(text: str) -> tuple[float, float] | None:
    told, _ = only_object(text)
    if told is None:
        return None
    listed = told.get("scores", [told.get("first"), told.get("second")])
    if not isinstance(listed, list) or len(listed) != 2 or not all(map(is_number, listed)):
        return None
    return listed[0], listed[1]


def _of_line(line: str, scale: Scale) -> tuple[float, float] | None:
    found = _LINE.fullmatch(line)
    if found:
        return _scaled(found[1], found[2], found[3], found[4], scale)
    both = list(_labelled([line], scale))
    return both[0] if both else None


def _places(lines: Sequence[str], scale: Scale) -> list[tuple[float, float]]:
    """What every place says that has both scores."""
    pairs = [pair for line in lines if _LINE.fullmatch(line) and (pair := _of_line(line, scale))]
    pairs += _labelled(lines, scale)
    told = [(each[1], each[2], each[3]) for each in _TOLD.finditer("\n".join(lines))]
    return pairs + _both(told, scale)


def _labelled(lines: Sequence[str], scale: Scale) -> list[tuple[float, float]]:
    found = [(each[1], each[2], each[3]) for line in lines for each in _LABELLED.finditer(line)]
    return _both(found, scale)


def _both(found: Sequence[tuple[str, str, str | None]], scale: Scale) -> list[tuple[float, float]]:
    """The pairs that labelled scores make: one, where each answer has one score; more, where they
    have several."""
    firsts = [each for each in found if each[0].upper() in ("1", "A")]
    seconds = [each for each in found if each[0].upper() in ("2", "B")]
    pairs = [_scaled(a[1], a[2], b[1], b[2], scale) for a in firsts for b in seconds]
    return [pair for pair in pairs if pair is not None]


def _scaled(
    a: str, of_a: str | None, b: str, of_b: str | None, scale: Scale
) -> tuple[float, float] | None:
    """Two numbers; None where one is of another scale, as in 7/100."""
    if any(of is not None and float(of) != scale.high for of in (of_a, of_b)):
        return None
    return float(a), float(b)
