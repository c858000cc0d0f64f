"""The questions of test sets, from files of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tagsieve.errors import UsageError
from tagsieve.screening.config import TestSet

QUESTIONS = pa.schema(
    [
        pa.field("test_set", pa.string(), nullable=False),
        pa.field("question", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)


def read_questions(test_sets: Sequence[TestSet]) -> pa.Table:
    """The questions of all test sets (`QUESTIONS`); `question` is the 0-based line of its file.

    They are held in memory. Raises UsageError for a file that cannot be read, a line that is no
    JSON object, or one that lacks the question.
    """
    rows = [
        {"test_set": test_set.name, "question": number, "text": text}
        for position, test_set in enumerate(test_sets)
        for number, text in _questions(test_set, f"screen.test_sets.{position}")
    ]
    return pa.Table.from_pylist(rows, schema=QUESTIONS)


def _questions(test_set: TestSet, setting: str) -> list[tuple[int, str]]:
    import fsspec

    try:
        with fsspec.open(test_set.path, "rt", encoding="utf-8-sig", compression="infer") as file:
            lines = file.read().split("\n")
    except FileNotFoundError as error:
        raise UsageError(
            f"{setting}.path={test_set.path}: no such file; name the JSON lines of {test_set.name}"
        ) from error
    except (OSError, EOFError, ImportError, ValueError) as error:
        raise UsageError(f"{setting}.path={test_set.path}: cannot be read: {error}") from error
    records = [
        (number, _record(f"{setting}.path: {test_set.path}, line {number + 1}", line))
        for number, line in enumerate(lines)
        if line.strip()
    ]
    if not records:
        raise UsageError(f"{setting}.path={test_set.path}: has no line; name a file with questions")
    first, *others = test_set.fields
    for number, record in records:
        if not (_text(record, first) or "").strip():
            raise _no_text(setting, first, f"line {number + 1} of {test_set.path}", record)
    for field in others:
        if all(_text(record, field) is None for _, record in records):
            raise _no_text(setting, field, f"any line of {test_set.path}", records[0][1])
    return [
        (number, "\n".join(text for field in test_set.fields if (text := _text(record, field))))
        for number, record in records
    ]


def _record(place: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{place}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise UsageError(f"{place}: expected a JSON object with the question in it")
    return record


def _no_text(setting: str, field: str, where: str, record: dict[str, Any]) -> UsageError:
    return UsageError(
        f"{setting}.field={field}: no text there in {where}, which has: {', '.join(record)}. Set "
        "field to the key of the question"
    )


def _text(record: Any, field: str) -> str | None:
    """The string at a dotted key, None where there is none."""
    for key in field.split("."):
        if isinstance(record, dict) and key in record:
            record = record[key]
        elif isinstance(record, list) and key.isdigit() and int(key) < len(record):
            record = record[int(key)]
        else:
            return None
    return record if isinstance(record, str) else None
