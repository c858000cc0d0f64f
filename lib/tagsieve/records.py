"""What a sample is, and its identity.

A sample is a list of turns, each with a role (`ROLES`) and a content. Its identity is a hash of the
normalised turns, so the same conversation has the same id in every file, pool and run. Text is
normalised for identity only: tables keep it as it came.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable

ROLES = ("system", "user", "assistant", "tool")

ID_LENGTH = 32
"""Hex digits of an id: 128 bits, no collision to be expected among 10^15 samples."""

# Unicode's White_Space property, spelled out: Python's \s also holds U+001C to U+001F.
_WHITE_SPACE = re.compile(
    "[\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
)


def normalize_text(text: str) -> str:
    """NFC, each run of Unicode White_Space as one space, stripped."""
    return _WHITE_SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip(" ")


def sample_id(turns: Iterable[tuple[str, str]]) -> str:
    """The id of a conversation: 32 hex digits of SHA-256 over JSON `[[role, text], ...]`."""
    return _digest([[role, normalize_text(content)] for role, content in turns])


def query_id(content: str) -> str:
    """The id of one human turn: the same hash over `[["user", text]]`, whatever surrounds it."""
    return _digest([["user", normalize_text(content)]])


def query_ids(turns: Iterable[tuple[str, str]]) -> list[str]:
    """One id per human turn, in the order of the conversation."""
    return [query_id(content) for role, content in turns if role == "user"]


def _digest(turns: list[list[str]]) -> str:
    text = json.dumps(turns, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate cannot be UTF-8; it becomes "?", as it does when a table stores the text.
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:ID_LENGTH]
