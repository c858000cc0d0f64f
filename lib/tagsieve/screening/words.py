"""The words of a text, the same for texts that differ in case, punctuation or white space only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

import pyarrow as pa
import regex
from pyspark.sql import Column
from pyspark.sql import functions as F

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?V1)[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+"
)
_ASCII_WORD = re.compile("[a-z0-9]+")


def words(text: str) -> list[str]:
    """The words of a text: NFC, case-folded, runs of letters, marks and digits.

    A letter of a script that is written without spaces is a word of its own.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return list(_WORD.findall(folded))


@cache
def words_of() -> Callable[..., Column]:
    """`words` as a Spark function of a string column."""

    @F.arrow_udf("array<string>")  # type: ignore[attr-defined, untyped-decorator]
    def found(texts: pa.Array) -> pa.Array:
        return pa.array(
            [None if text is None else words(text) for text in texts.to_pylist()],
            pa.list_(pa.string()),
        )

    return found  # type: ignore[no-any-return, unused-ignore]


def runs(items: Column, size: int) -> Column:
    """The runs of `size` neighbours in an array, as arrays; none where it is shorter.

    Not the distinct ones: Spark compares arrays in pairs, so what is distinct is for their hashes
    or for rows to say.
    """
    starts = F.sequence(F.lit(1), F.size(items) - (size - 1))
    found = F.transform(starts, lambda start: F.slice(items, start, F.lit(size)))
    return F.when(F.size(items) >= size, found).otherwise(F.array().cast("array<array<string>>"))


def hashed(listed: Column) -> Column:
    """The 64-bit hash of each element of an array."""
    return F.transform(listed, lambda element: F.xxhash64(element))


def human(turn: Any) -> Column:
    """Whether a turn is a human one."""
    return turn["role"] == "user"  # type: ignore[no-any-return]
