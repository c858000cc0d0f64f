"""What a model wrote, read as tags; whatever it wrote, nothing here raises.

The model was asked for `[{"tag": ..., "explanation": ...}]`. It may wrap that in words or fences,
leave out commas, quote with the wrong signs, stop in the middle, or answer with a plain list. What
cannot be read as tags is said to be so, never guessed at.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import json_repair
import regex

from tagsieve.engines.llm.replies import after_thoughts

OUTPUT_CUT, REPAIRED, ITEMS_DROPPED = "output_cut", "repaired", "items_dropped"
"""Flags of an answer: it ended in the middle (complete items are kept); it was no strict JSON;
items of it were no tags."""

LONGEST = 64_000
"""Characters of an answer that are read. No list of tags is as long; a model that loops is."""

LONGEST_REPAIRED = 6_000
"""Characters repaired at a time, far more than an item needs: repair takes quadratic time."""

LONGEST_TAG = 100
LONGEST_EXPLANATION = 2_000

_OTHER_KEYS = ("name", "label", "intent", "intention")
"""Keys that stand for `tag` beside an explanation. Alone they are in many objects that are none."""

_EXPLANATION_KEYS = ("explanation", "description", "reason", "why")
_LIST_KEYS = ("tags", "intentions", "intents", "labels")
"""Keys whose list may hold plain texts. Objects with a tag are found below any key."""

_KEY = r"(?:tag|name|label|intent|intention|explanation)"
_ITEM_START = regex.compile(
    rf"""(?:\{{\s*["'“]?|(?:^|[\[}}])[\s,]*["'“]){_KEY}(?:["'”]?\s*[:：]|["'”]\s+["'“])""",
    regex.IGNORECASE,
)
"""Where an item starts in broken JSON: a brace, which may be missing, and a key."""

_QUOTED_KEY = regex.compile(r"""["'“](tag|explanation)["'”]\s*[:：]""", regex.IGNORECASE)
_ENDED_TEXT = regex.compile(r"""["”]\s*[,:{}\[\]]""")
"""In a repaired tag: the tag ended there, and what stands behind it is no part of it."""

_LIST_START = regex.compile(r"""\[\s*["'“‘\]]""")
_LIST_END = regex.compile(r"""(?<!\\)"\s*\]""")
_BEGUN_TEXT = regex.compile(r""""(?:[^"\\]|\\.)*\\?\Z""", regex.DOTALL)
_CLOSING = ('"', "'", "”", "’")
_ANNOUNCED = regex.compile(r"\b(?:tags?|labels?|inten(?:t|tion)s?)\b|标签|標籤", regex.IGNORECASE)
"""Words beside a list of plain texts that tell it from the answer to a query."""

_FENCE = regex.compile(r"```(\w*)[^\S\n]*\n?(.*?)(?:```|\Z)", regex.DOTALL)
_FENCED = ("", "json", "text", "plaintext")
_LISTED = regex.compile(r"(?:(?:\d{1,3}\s*[.):]|[-*•–])\s+|\d{1,3}\s*[、．）]\s*)(?P<tag>\S.*)")
_TAG_AND_WHY = regex.compile(r"^(?P<tag>.{1,100}?)\s*(?::\s+|\s+[-–—]\s+|：)(?P<why>.+)$")

_ECHOED = (("str", "str"), ("string", "string"))
"""The format of the prompt, written down again."""

_QUOTES = " \t\r\n\"'“”‘’«»「」"
_MARKDOWN = _QUOTES + "`*_"
_SENTENCE = regex.compile(r"[.!?。！？]$")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_JOINERS = "\u200c\u200d"
"""Without them words of Persian or Hindi are others."""


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
    empty, has no letter or digit, or is a sentence (over `max_words` words, or 100 characters);
    more than `max_tags` different tags is an answer that ran away, and is an error.
    """
    cut = cut or len(text) > LONGEST
    found = _read(text[:LONGEST], cut)
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
    some_are_none = any(not _is_tag(tag, max_words) for tag, _ in pairs)
    if found.lost or some_are_none or len(pairs) < len(found.items):
        flags.append(ITEMS_DROPPED)
    if len(good) > max_tags:
        return Parsed([], [], f"{len(good)} tags in one answer")
    if not good and OUTPUT_CUT in flags:
        return Parsed([], [], "the answer was cut before its first tag was complete")
    if not good and (found.items or found.lost):
        return Parsed([], [], "no item of the answer is a tag")
    return Parsed(list(good.values()), flags)


@dataclass(frozen=True)
class _Found:
    """Items of an answer. `strict`: it was JSON and nothing else; `open_end`: it breaks off;
    `lost`: there are items in it that no repair could read."""

    items: list[Any]
    strict: bool = False
    open_end: bool = False
    lost: bool = False


def _read(text: str, cut: bool) -> _Found | None:
    """The items, by the strictest reading that gives any."""
    text = after_thoughts(text.strip().strip("\ufeff\u200b").strip())
    body = _unfenced(text)
    return _strict(body) or _objects(text) or _texts(body) or _listed(body, cut)


def _unfenced(text: str) -> str:
    """What is inside the only code fence, or the whole."""
    fences = [] if text.startswith(("[", "{")) else list(_FENCE.finditer(text))
    if len(fences) != 1 or fences[0][1].casefold() not in _FENCED or not fences[0][2].strip():
        return text
    outside = text[: fences[0].start()] + text[fences[0].end() :]
    return text if _ITEM_START.search(outside) else str(fences[0][2]).strip()


def _strict(body: str) -> _Found | None:
    """An answer that is JSON, or JSON inside of a JSON string, with or without its quotes."""
    for text in (body, f'"{body}"'):
        try:
            value = _DECODER.decode(text)
            escaped = isinstance(value, str)
            items = _items(_DECODER.decode(value) if escaped else value)
        except (ValueError, RecursionError):
            continue
        if items is not None:
            return _Found(items, strict=not escaped)
    return None


def _objects(text: str) -> _Found | None:
    """The objects in a text: those that are JSON as they are, what lies between them repaired."""
    items: list[Any] = []
    depth, place = 0, 0
    lost = cut = False
    for start, end, found in [*_json_objects(text), (len(text), len(text), [])]:
        mended, deeper = _mended(text[place:start], last=start == len(text))
        items += mended.items + found
        depth += deeper
        lost, cut = lost or mended.lost, mended.open_end
        place = end
    if not items and not cut and not lost:
        return None
    return _Found(items, open_end=cut or depth > 0, lost=lost)


def _json_objects(text: str) -> Iterator[tuple[int, int, list[Any]]]:
    """Where objects with tags start and end in a text, and their items."""
    start = text.find("{")
    while start >= 0:
        try:
            value, end = _DECODER.raw_decode(text, start)
            items = _items(value)
        except ValueError:
            items, end = None, start + 1
        except RecursionError:
            return  # hundreds of brackets open: not tried again from each of them
        if items is not None:
            yield start, end, items
        start = text.find("{", end)


def _mended(gap: str, last: bool) -> tuple[_Found, int]:
    """Items of broken JSON, each repaired alone, so that none can swallow the next; brackets that
    the gap leaves open. Only in the last gap can an item break off."""
    starts = [match.start() for match in _ITEM_START.finditer(gap)]
    items: list[Any] = []
    item, cut = "", False
    depth = _opened(gap[: starts[0]] if starts else gap)
    for start, end in zip(starts, [*starts[1:], len(gap)], strict=False):
        item += gap[start:end]
        at_end = end == len(gap)
        deeper = _opened_behind(item)
        if deeper is None and at_end and last:
            cut = True
            break
        # What looks like the start of an item, inside of a string, is none.
        inside = deeper is None and not at_end and _state(item)[1]
        if inside and len(item) <= LONGEST_REPAIRED:
            continue
        items += _repaired_item(item)
        depth += deeper or 0
        item = ""
    # Keys tell how many items there were, also where their beginning could not be found.
    read = gap[: len(gap) - len(item)] if cut else gap
    keys = Counter(key.casefold() for key in _QUOTED_KEY.findall(read))
    begun = sum(start < len(read) for start in starts)
    lost = max([begun, *keys.values()]) > len(items)
    return _Found(items, open_end=cut, lost=lost), depth


def _opened_behind(item: str) -> int | None:
    """Brackets that what follows an item leaves open; None: the item itself is not closed.

    Quotation marks inside of texts mislead the counting, so an item is also closed where the mark
    that quotes its keys stands before a brace.
    """
    depth = _state(item)[0]
    mark = regex.search(r"[\"']", item)
    if depth <= 0 or mark is None:
        return depth if depth <= 0 else None
    # Python has both marks in one object. Behind a colon a mark opens a text, maybe with a brace.
    marks = "[\"']" if mark[0] == "'" else '"'
    end = regex.search(rf"(?<!\\|[:：]\s*){marks}\s*,?\s*\}}", item, pos=mark.end())
    return _opened(item[end.end() :]) if end else None


def _opened(text: str) -> int:
    """Brackets that words around items leave open; quotation marks in them mean nothing."""
    return sum((sign in "[{") - (sign in "]}") for sign in text)


def _repaired_item(item: str) -> list[Any]:
    """The object, or objects, of one item of broken JSON."""
    inside = item.lstrip("[{}, \t\r\n")
    value = _repaired("{" + inside[: inside.rfind("}") + 1 or None])
    try:
        found = [each for each in _flat(value) if _is_item(each)]
    except RecursionError:
        return []
    return [each for each in found if not _ENDED_TEXT.search(_text(_named(each)))]


def _repaired(text: str) -> Any:
    """The value of broken JSON; None when there is none, or the text is too long."""
    if len(text) > LONGEST_REPAIRED:
        return None
    try:
        return json_repair.loads(text)
    except Exception:  # it guesses at what others broke: no fault of it may end a run
        return None


def _texts(body: str) -> _Found | None:
    """A list of plain texts that is the whole answer, or that words around it call tags."""
    start = _LIST_START.search(body)
    if start is None:
        return None
    listed = body[start.start() :]
    depth, quoted = _state(listed)
    if depth <= 0:
        listed = listed[: max(listed.rfind("]"), listed.rfind("}")) + 1]
    before, after = body[: start.start()].strip(), body[start.start() + len(listed) :].strip()
    near = regex.split(r"[\[\]{}]", before)[-1] if before else after
    if (before or after) and not _ANNOUNCED.search(near):
        return None
    if depth > 0 and _LIST_END.search(listed):
        return None  # marks inside of the texts are not escaped: where they end is a guess
    # A text that has only begun goes before a repair can guess where it ends.
    items = _repaired(_BEGUN_TEXT.sub("", listed) + "]" if quoted else listed)
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        return None
    if depth > 0 and not quoted and not listed.rstrip(" \t\r\n,").endswith(_CLOSING):
        items = items[:-1]
    return _Found(items, open_end=depth > 0)


def _listed(body: str, cut: bool) -> _Found | None:
    """`1. SQL query: ...`, one a line and nothing else, save lines that announce and end them.

    The last line of a cut answer may not be whole.
    """
    lines = [" ".join(line.split()) for line in body.splitlines() if line.strip()]
    if cut:
        lines = lines[:-1]
    if lines and _LISTED.fullmatch(lines[0]) is None:
        if not lines[0].rstrip(_MARKDOWN).endswith((":", "：")) or not _ANNOUNCED.search(lines[0]):
            return None
        lines = lines[1:]
        if lines and not cut and _LISTED.fullmatch(lines[-1]) is None:
            lines = lines[:-1]
    found = [_LISTED.fullmatch(line) for line in lines]
    if not found or None in found:
        return None
    items = [_split(match["tag"].strip(_MARKDOWN)) for match in found if match]
    # Steps are no tags, and `Tag: SQL` is no tag of that name.
    sentences = sum(bool(_SENTENCE.search(item["tag"])) for item in items)
    if 2 * sentences > len(items) or any(item["tag"].casefold() == "tag" for item in items):
        return None
    return _Found(items, open_end=cut)


def _state(text: str) -> tuple[int, bool]:
    """How many brackets are open at the end, outside of strings, and whether a string is."""
    depth, quoted, escaped = 0, False, False
    for sign in text:
        if escaped:
            escaped = False
        elif sign == "\\":
            escaped = True
        elif sign == '"':
            quoted = not quoted
        elif not quoted:
            depth += (sign in "[{") - (sign in "]}")
    return depth, quoted


def _split(line: str) -> dict[str, str]:
    """`SQL query: the user asks ...` as a tag and its explanation."""
    pair = _TAG_AND_WHY.match(line)
    if pair is None:
        return {"tag": line, "explanation": ""}
    return {"tag": pair["tag"].strip(_MARKDOWN), "explanation": pair["why"].strip(_MARKDOWN)}


def _objects_of(pairs: list[tuple[str, Any]]) -> Any:
    """A JSON object; a list of them where its keys come again, so that none is overwritten."""
    objects: list[dict[str, Any]] = [{}]
    for key, value in pairs:
        if key in objects[-1]:
            objects.append({})
        objects[-1][key] = value
    return objects if len(objects) > 1 else objects[0]


_DECODER = json.JSONDecoder(object_pairs_hook=_objects_of)


def _items(value: Any) -> list[Any] | None:
    """The items in a JSON value: all texts of a list, or objects with a tag, however deep."""
    listed = value
    if isinstance(value, dict):
        lowered = _lowered(value)
        listed = next((lowered[key] for key in _LIST_KEYS if key in lowered), None)
    if isinstance(listed, list) and all(isinstance(item, str) for item in listed):
        return listed
    items = list(_flat(value))
    return items if any(_is_item(item) for item in items) else None


def _flat(value: Any) -> Iterator[Any]:
    """What stands in nested lists and objects, objects that are items as they are."""
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict) and not _is_item(value):
        inner = [each for each in value.values() if isinstance(each, list | dict)]
        yield from _flat(inner) if inner else [value]
    else:
        yield value


def _is_item(value: Any) -> bool:
    """Whether it is an object that names a tag."""
    if not isinstance(value, dict):
        return False
    lowered = _lowered(value)
    return "tag" in lowered or (
        "explanation" in lowered and any(key in lowered for key in _OTHER_KEYS)
    )


def _named(item: dict[Any, Any]) -> Any:
    """The value that stands for the tag of an item."""
    lowered = _lowered(item)
    return next(lowered[key] for key in ("tag", *_OTHER_KEYS) if key in lowered)


def _lowered(value: dict[Any, Any]) -> dict[str, Any]:
    return {str(key).strip().casefold(): inner for key, inner in value.items()}


def _tags(items: list[Any]) -> Iterator[tuple[str, str]]:
    """Tag and explanation of each item that has a tag, unless it is an echo of the prompt."""
    texts_only = all(isinstance(item, str) for item in items)
    for item in items:
        if texts_only:
            yield _text(item).strip(_QUOTES), ""
        elif _is_item(item):
            tag, lowered = _named(item), _lowered(item)
            why = next((lowered[key] for key in _EXPLANATION_KEYS if key in lowered), "")
            if isinstance(tag, str) and (tag, why) not in _ECHOED:
                yield _text(tag).strip(_QUOTES), _text(why)[:LONGEST_EXPLANATION]


def _text(value: Any) -> str:
    """Text that a table can hold: one line, no lone surrogates, no control characters."""
    if not isinstance(value, str):
        return ""
    whole = value.encode("utf-8", "ignore").decode("utf-8")
    return unicodedata.normalize("NFC", " ".join("".join(map(_shown, whole)).split()))


def _shown(sign: str) -> str:
    """The sign; a space for a control character, nothing for an invisible mark."""
    if sign.isprintable() or sign in _JOINERS:
        return sign
    return "" if unicodedata.category(sign) == "Cf" else " "


def _is_tag(tag: str, max_words: int) -> bool:
    """Whether it is no sentence; scripts without spaces have a word in three signs."""
    if not any(sign.isalnum() for sign in tag) or len(tag) > LONGEST_TAG:
        return False
    unspaced = len(_UNSPACED.findall(tag))
    if max(len(tag.split()), unspaced // 3) > max_words:
        return False
    return not (_SENTENCE.search(tag) and (len(tag.split()) > 4 or unspaced > 4))
