"""Lengths of texts: characters, words, or tokens of a tokenizer, as Spark columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

from tagsieve.engines.models import TOKENIZER_FILES, model_folder, tokenizer_digest
from tagsieve.ledger import fingerprint
from tagsieve.scoring.config import LengthConfig

COUNTED = ("characters", "words", "nltk")
"""Units that need no tokenizer's files."""

_WORDS = r"(?U)\S+"
"""Runs of anything but Unicode's White_Space."""


def length_fingerprint(config: LengthConfig) -> str:
    """What is measured, and a hash of the tokenizer's files; UsageError when it is not there."""
    name = f"length-{config.of}"
    if config.tokenizer in ("characters", "words"):
        return f"{name}-{config.tokenizer}"
    if config.tokenizer == "nltk":
        return f"{name}-nltk-{version('nltk')}"
    return f"{name}-{fingerprint(tokenizer_digest(_folder(config)))[:12]}"


def _folder(config: LengthConfig) -> str:
    return model_folder(config.tokenizer, config.revision, TOKENIZER_FILES)


def length(text: Column, config: LengthConfig) -> Column:
    """The length of a text as a Spark column; null for null.

    `nltk` is NLTK's `NLTKWordTokenizer`: punctuation is a word of its own, contractions are two; it
    needs no downloaded data. `word_tokenize`, which finds sentences first, also parts the full
    stops at their ends.
    """
    if config.tokenizer == "characters":
        return F.char_length(text)
    if config.tokenizer == "words":
        return F.regexp_count(text, F.lit(_WORDS))
    folder = None if config.tokenizer == "nltk" else _folder(config)

    @F.arrow_udf("long")  # type: ignore[attr-defined, untyped-decorator]
    def counted(texts: pa.Array) -> pa.Array:
        there = texts.drop_null().to_pylist()
        lengths = iter(_counter(folder)(there))
        return pa.array([next(lengths) if text.is_valid else None for text in texts], pa.int64())

    return counted(text)  # type: ignore[no-any-return, unused-ignore]


@cache
def _counter(folder: str | None) -> Callable[[list[str]], list[int]]:
    """Lengths of texts by a tokenizer's folder, or by NLTK; loaded once a worker."""
    if folder is None:
        from nltk.tokenize import NLTKWordTokenizer

        words = NLTKWordTokenizer()
        return lambda texts: [len(words.tokenize(text)) for text in texts]
    from tagsieve.engines.llm.fitting import load_tokenizer

    tokenizer: Any = load_tokenizer(folder)

    def tokens(texts: list[str]) -> list[int]:
        if not texts:
            return []
        found = tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return [len(ids) for ids in found["input_ids"]]

    return tokens
