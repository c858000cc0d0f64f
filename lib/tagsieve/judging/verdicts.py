"""What a judge of a pair wrote, read as two scores or a winner; whatever it wrote, nothing here
raises and nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from tagsieve.engines.llm.replies import UNPARSEABLE
from tagsieve.engines.llm.verdicts import Scale, Unread, body, is_number, only_object

CONTRADICTORY = "contradictory"
"""Two scores or winners that the answer gives are not the same."""

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
    return scale.check(found[0]) or scale.check(found[1]) or found


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


_WINNERS: dict[str, Winner] = {"A": "A", "B": "B", "C": "tie", "TIE": "tie"}


def _of_object(text: str) -> tuple[float, float] | None:
    told, _ = only_object(text)
    if told is None:
        return None
    listed = told.get("scores", [told.get("first"), told.get("second")])
    if not isinstance(listed, list) or len(listed) != 2 or not all(map(is_number, listed)):
        return None
    return float(listed[0]), float(listed[1])


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
