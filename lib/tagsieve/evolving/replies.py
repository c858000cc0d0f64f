"""What a generator and a judge wrote, read strictly: what is not surely a variant or a score of
each variant is an error, never a guess."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tagsieve.engines.llm.replies import REFUSED, Reply, after_thoughts
from tagsieve.records import normalize_text

CUT, UNMARKED, EMPTY = "cut", "unmarked", "empty"
UNCHANGED, SCAFFOLDING, TOO_LONG = "unchanged", "scaffolding", "too_long"
INCOMPLETE = "incomplete"
"""The judge did not give every variant one score of 1 to 6."""

SCORES = range(1, 7)

_MARKED = re.compile(r"<evolved>(.*)</evolved>", re.DOTALL | re.IGNORECASE)
_REFUSAL = re.compile(
    r"\W*(?:i(?:['’]m| am) (?:very |so |really )?sorry\b|sorry,|my apologies\b|i apologi[sz]e\b"
    r"|i (?:can(?:not|['’]t| not)|won['’]t|will not|must decline|have to decline)\b"
    r"|i(?:['’]m| am) (?:unable|not able|not allowed)\b|as an ai\b)",
    re.IGNORECASE,
)
_SCAFFOLDING = re.compile(
    r"</?(?:evolved|request|response|variant)\b[^>\n]*>"
    r"|#+ *(?:the )?(?:given|original|new|rewritten|revised|evolved|created)"
    r" (?:prompt|request|instruction|question|response|answer)\b"
    r"|\b(?:rewritten|evolved) (?:prompt|instruction)\b",
    re.IGNORECASE,
)
"""Signs that a prompt which asks for a rewriting left in its answer: the marks of ours, and the
headings that other such prompts have taught models."""

_FLAT_OBJECT = re.compile(r"\{[^{}]*\}")


def read_variant(reply: Reply, parent: str, max_chars: int) -> tuple[str, str | None]:
    """The variant in an answer to `evolve_complexity` or `evolve_quality`, and None; or the error,
    and its reason.

    A sign of refusal or scaffolding that the parent has already is the parent's own.
    """
    text = after_thoughts(reply.text)
    marked = _MARKED.search(text)
    if reply.cut:
        return "the answer ended at decoding.max_tokens", CUT
    if marked is None:
        if _REFUSAL.match(text):
            return "the answer declines to write a variant", REFUSED
        return "the answer has no text between <evolved> and </evolved>", UNMARKED
    variant = marked[1].strip()
    if not normalize_text(variant):
        return "the variant is empty", EMPTY
    if len(variant) > max_chars:
        return f"the variant has {len(variant)} characters; evolve.max_chars={max_chars}", TOO_LONG
    if normalize_text(variant).casefold() == normalize_text(parent).casefold():
        return "the variant says what its parent says", UNCHANGED
    if _REFUSAL.match(variant) and not _REFUSAL.match(parent):
        return "the variant declines instead of evolving", REFUSED
    own = {found.casefold() for found in _SCAFFOLDING.findall(parent)}
    leaked = [found for found in _SCAFFOLDING.findall(variant) if found.casefold() not in own]
    if leaked:
        return f"the variant has {leaked[0]!r} of a prompt in it", SCAFFOLDING
    return variant, None


def read_scores(text: str, count: int) -> tuple[list[int], str | None]:
    """The scores of variants 1 to `count` in a judge's answer, in the order of those numbers, and
    None; or none, and what is wrong.

    The answer is read by its flat JSON objects that have `variant` and `score`, whatever stands
    around them.
    """
    pairs = _pairs(after_thoughts(text))
    times = Counter(variant for variant, _ in pairs)
    wanted = range(1, count + 1)
    lacking = [str(number) for number in wanted if number not in times]
    if lacking:
        return [], f"no score of variant {', '.join(lacking)} of {count}"
    for variant, often in times.items():
        if variant not in wanted:
            return [], f"variant {variant} is scored, and there are {count}"
        if often > 1:
            return [], f"variant {variant} is scored {often} times"
    scores: list[int] = []
    for _, score in sorted(pairs):
        if score not in SCORES:
            return [], f"{score} is no score of 1 to 6"
        scores.append(int(score))
    return scores, None


def _pairs(text: str) -> list[tuple[float, float]]:
    """`variant` and `score` of each flat object; -1 stands for what is no number."""
    pairs = []
    for found in _FLAT_OBJECT.findall(text):
        try:
            value = json.loads(found)
        except (ValueError, RecursionError):
            continue
        if {"variant", "score"} <= value.keys():
            pairs.append((_number(value["variant"]), _number(value["score"])))
    return pairs


def _number(value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,4}", value):
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return value
    return -1


def shown_order(judgement_id: str, ids: Sequence[str]) -> list[int]:
    """In which order a judge is shown the variants `ids`: their indexes, shuffled by a hash."""
    return sorted(
        range(len(ids)),
        key=lambda index: hashlib.sha256(f"{judgement_id} {ids[index]}".encode()).digest(),
    )
