"""What a model wrote, read as tags; whatever it wrote, nothing here raises.

The model was asked for `[{"tag": ..., "explanation": ...}]`. It may wrap that in words or fences,
leave out commas, quote with the wrong signs, stop in the middle, or answer with a plain list. What
cannot be read as tags is said to be so, never guessed at.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import json_repair
import regex

UNPARSEABLE = "unparseable"
"""Why an answer is in quarantine: no tag can be read from it, and it is no empty list either."""

OUTPUT_CUT, REPAIRED, ITEMS_DROPPED = "output_cut", "repaired", "items_dropped"
"""Flags of an answer: it ended in the middle (complete items are kept); it was no strict JSON;
items of it were no tags."""

LONGEST = 64_000
"""Characters of an answer that are read. No list of tags is as long; a model that loops is."""

LONGEST_TAG = 100
LONGEST_EXPLANATION = 2_000

_TAG_KEYS = ("tag", "name", "label", "intent", "intention")
_EXPLANATION_KEYS = ("explanation", "description", "reason", "why")
_LIST_KEYS = ("tags", "intentions", "intents", "labels", "results", "items", "data", "answer")
_FENCE = regex.compile(r"```[\w-]*[ \t]*\n?(.*?)(?:```|\Z)", regex.DOTALL)
_LISTED = regex.compile(r"(?:\d{1,3}\s*[.):]|[-*•–])\s+(?P<tag>\S.*)")
_TAG_AND_WHY = regex.compile(r"^(?P<tag>.{1,100}?)\s*(?::\s+|\s+[-–—]\s+|：)(?P<why>.+)$")
_START = regex.compile(r"""\[\s*[\[{"'“]|\{\s*["'“\w]""")
"""Where JSON starts in a text: brackets around anything else are prose."""

_QUOTES = " \t\r\n\"'`*_“”‘’«»「」"
_SENTENCE = regex.compile(r"[.!?。！？]$")


@dataclass(frozen=True)
class Parsed:
    """Tags with their explanations, each tag once, in the model's order; `error`: why there are
    none (None: the model gave tags, or an empty list, which is an answer)."""

    tags: list[tuple[str, str]]
    flags: list[str]
    error: str | None = None


def parse_tags(text: str, cut: bool = False, max_tags: int = 50, max_words: int = 10) -> Parsed:
    """Read an answer. `cut`: it ended at the limit of tokens.

    Of a cut answer the last item is dropped unless it was closed. An item is no tag when it is
    empty, has no letter or digit, or is a sentence (over `max_words` words, or 100 characters); more
    than `max_tags` different tags is an answer that ran away, and is an error.
    """
    found = _read(_body(text[:LONGEST]))
    if found is None:
        return Parsed([], [], "no list of tags in the answer")
    flags = [] if found.strict else [REPAIRED]
    if cut or found.open_end:
        flags.append(OUTPUT_CUT)
    pairs = list(_tags(found.items))
    good: dict[str, tuple[str, str]] = {}
    for tag, why in pairs:
        if _is_tag(tag, max_words):
            good.setdefault(tag.casefold(), (tag, why))
    if len(pairs) < len(found.items) or any(not _is_tag(tag, max_words) for tag, _ in pairs):
        flags.append(ITEMS_DROPPED)
    if len(good) > max_tags:
        return Parsed([], [], f"{len(good)} tags in one answer")
    if not good and OUTPUT_CUT in flags:
        return Parsed([], [], "the answer was cut before its first tag was complete")
    if not good and found.items:
        return Parsed([], [], "no item of the answer is a tag")
    return Parsed(list(good.values()), flags)


@dataclass(frozen=True)
class _Found:
    """Items of an answer; `strict`: it was JSON and nothing else; `open_end`: it breaks off."""

    items: list[Any]
    strict: bool = False
    open_end: bool = False


def _read(body: str) -> _Found | None:
    """The items, by the strictest reading that gives any."""
    try:
        items = _items(json.loads(body))
    except (ValueError, RecursionError):
        items = None
    if items is not None:
        return _Found(items, strict=True)
    return _whole_objects(body) or _repaired(body) or _listed(body)


def _body(text: str) -> str:
    """What is inside a code fence, or the whole."""
    text = text.strip()
    fenced = None if text.startswith(("[", "{")) else _FENCE.search(text)
    return (fenced[1] if fenced and fenced[1].strip() else text).strip()


def _whole_objects(body: str) -> _Found | None:
    """The JSON objects in a text, when each is whole; an unfinished one at the end is left out."""
    decoder = json.JSONDecoder()
    items: list[Any] = []
    place = body.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(body, place)
        except (ValueError, RecursionError):
            if items and _open_end(body) and body.find("{", place + 1) < 0:
                return _Found(items, open_end=True)
            return None
        items += _items(value) or []
        place = body.find("{", end)
    if not items:
        return None
    return _Found(items, open_end=_open_end(body))


def _repaired(body: str) -> _Found | None:
    """The objects of a text that is nearly JSON; of one that breaks off, without the last."""
    start = _START.search(body)
    if start is None:
        return None
    open_end = _open_end(body)
    end = len(body) if open_end else max(body.rfind("]"), body.rfind("}")) + 1
    rest = body[start.start() : end]
    # One object after the other, with or without commas, is a list without brackets.
    listed = rest if rest.startswith("[") else f"[{rest}]"
    try:
        items = _items(json_repair.loads(listed, skip_json_loads=True))
    except (ValueError, RecursionError, IndexError, TypeError, AttributeError):
        return None
    if items is None:
        return None
    # Among objects, text is what stood between them; a list of texts is one of tags.
    objects = [item for item in items if isinstance(item, dict)]
    items = (objects or items)[: -1 if open_end else None]
    return _Found(items, open_end=open_end) if items or open_end else None


def _listed(body: str) -> _Found | None:
    """`1. SQL query: ...`, one a line and nothing else, save a line that announces them."""
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    if lines and lines[0].endswith((":", "：")) and not _LISTED.fullmatch(lines[0]):
        lines = lines[1:]
    found = [_LISTED.fullmatch(line) for line in lines]
    if not found or None in found:
        return None
    return _Found([_split(match["tag"].strip(_QUOTES)) for match in found if match])


def _open_end(body: str) -> bool:
    """Whether brackets are open at the end, outside of strings."""
    depth, quoted, escaped = 0, False, False
    for sign in body:
        if escaped:
            escaped = False
        elif sign == "\\":
            escaped = True
        elif sign == '"':
            quoted = not quoted
        elif not quoted:
            depth += (sign in "[{") - (sign in "]}")
    return depth > 0


def _split(line: str) -> dict[str, str]:
    """`SQL query: the user asks ...` as a tag and its explanation."""
    pair = _TAG_AND_WHY.match(line)
    if pair is None:
        return {"tag": line, "explanation": ""}
    return {"tag": pair["tag"].strip(_QUOTES), "explanation": pair["why"].strip()}


def _items(value: Any) -> list[Any] | None:
    """The list of items in a JSON value: itself, one object, or below a key that says so."""
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], list | dict):
            inner = _items(value[0])
            return inner if inner is not None else value
        return value
    if not isinstance(value, dict):
        return None
    if any(key in value for key in _TAG_KEYS):
        return [value]
    for key in _LIST_KEYS:
        if isinstance(value.get(key), list):
            return list(value[key])
    return None


def _tags(items: list[Any]) -> Iterator[tuple[str, str]]:
    for item in items:
        if isinstance(item, str):
            yield _clean(item), ""
        elif isinstance(item, dict):
            lowered = {str(key).strip().casefold(): value for key, value in item.items()}
            tag = next((lowered[key] for key in _TAG_KEYS if key in lowered), None)
            why = next((lowered[key] for key in _EXPLANATION_KEYS if key in lowered), "")
            if isinstance(tag, str):
                yield _clean(tag), _text(why)[:LONGEST_EXPLANATION]


def _clean(tag: str) -> str:
    return _text(tag).strip(_QUOTES)


def _text(value: Any) -> str:
    """Text that a table can hold: one line, no lone surrogates, no control characters."""
    if not isinstance(value, str):
        return ""
    text = unicodedata.normalize("NFC", value.encode("utf-8", "replace").decode("utf-8"))
    kept = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(kept.split())


def _is_tag(tag: str, max_words: int) -> bool:
    if not any(sign.isalnum() for sign in tag) or len(tag) > LONGEST_TAG:
        return False
    return len(tag.split()) <= max_words and not (_SENTENCE.search(tag) and len(tag.split()) > 4)
