"""Making a bank from labelled queries: a file, or the raw tags of a lake."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from tagsieve.console import Console
from tagsieve.engines.encoders import (
    Encoded,
    SentenceEncoder,
    cpu_dtype,
    packaged_minilm,
)
from tagsieve.errors import UsageError
from tagsieve.tagging.bank import Bank, Card

_CHUNK = 512


def read_examples(path: str) -> Iterator[tuple[str, list[str]]]:
    """Queries and their raw tags from JSON lines (.gz too): `query`, and `tags`, a list of strings
    or of objects with `tag`. Raises UsageError that names the line of what is wrong."""
    try:
        with fsspec.open(path, "rt", encoding="utf-8", compression="infer") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _example(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"bank: {path} cannot be read: {error}") from error


def _example(line: str, place: str) -> tuple[str, list[str]]:
    try:
        row: Any = json.loads(line)
        tags = [tag if isinstance(tag, str) else tag["tag"] for tag in row["tags"]]
        query = row["query"]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f'bank: {place} is no labelled query; expected {{"query": "...", "tags": ["...", ...]}}'
        ) from error
    if not isinstance(query, str) or not all(isinstance(tag, str) for tag in tags):
        raise UsageError(f"bank: {place}: query and tags must be strings")
    return query, tags


def build_bank(
    queries: Sequence[str],
    tag_lists: Sequence[Sequence[str]],
    name: str,
    sources: list[str],
    licence: str,
    console: Console,
) -> Bank:
    """Encode the queries and fit a bank to their (normalised) tags."""
    path = packaged_minilm()
    encoder = SentenceEncoder(path, cpu_dtype())
    encoded = encode_all(encoder, queries, console)
    console.line("fitting the tagger")
    tags = {tag for listed in tag_lists for tag in listed}
    card = Card(name, sources, licence, len(queries), len(tags), encoder.digest)
    return Bank.fit(encoder, encoded, tag_lists, card)


def encode_all(encoder: SentenceEncoder, texts: Sequence[str], console: Console) -> Encoded:
    """`encode_whole` over many texts, with progress."""
    progress = console.progress("encode", len(texts), "queries")
    parts = []
    for start in range(0, len(texts), _CHUNK):
        parts.append(encoder.encode_whole(texts[start : start + _CHUNK]))
        progress.advance(len(parts[-1].tokens))
    return Encoded(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.poolings for part in parts]),
        [tokens for part in parts for tokens in part.tokens],
    )


def folder_is_free(folder: str) -> None:
    """UsageError when something else than a bank lies in `folder`."""
    path = Path(folder)
    if path.exists() and any(path.iterdir()) and not (path / "card.json").exists():
        raise UsageError(f"bank: {folder} is not empty and holds no bank; name another folder")
