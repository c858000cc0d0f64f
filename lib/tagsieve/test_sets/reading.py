"""The questions of test sets, and models' answers to them, from files of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tagsieve.errors import UsageError
from tagsieve.test_sets.config import Answers, TestSet

QUESTIONS = pa.schema(
    [
        pa.field("test_set", pa.string(), nullable=False),
        pa.field("question", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)


def read_questions(test_sets: Sequence[TestSet], step: str = "screen") -> pa.Table:
    """The questions of all test sets of a step (`QUESTIONS`); `question` is the 0-based line of its
    file.

    They are held in memory. Raises UsageError for a file that cannot be read, a line that is no
    JSON object, or one that lacks the question.
    """
    rows = [
        _question(test_set, number, record)
        for position, test_set in enumerate(test_sets)
        for number, record in _asked(test_set, f"{step}.test_sets.{position}").items()
    ]
    return pa.Table.from_pylist(rows, schema=QUESTIONS)


def read_answers(
    test_sets: Sequence[TestSet], answers: Mapping[str, Answers], labels: str | None = None
) -> pa.Table:
    """`QUESTIONS` of the step judge, and the columns `answers`, with the answer of each model in
    the order of `answers`, and `labels`: the list of texts at this key of each question (None: all
    null).

    They are held in memory. Raises UsageError as `read_questions`, where a model's file has other
    lines than the test set, or other questions, and where a question has no labels.
    """
    rows = []
    for position, test_set in enumerate(test_sets):
        asked = _asked(test_set, f"judge.test_sets.{position}")
        of_models = [
            _answers(test_set, asked, told, f"judge.answers.{model}")
            for model, told in answers.items()
        ]
        for (number, record), *texts in zip(asked.items(), *of_models, strict=True):
            told = None if labels is None else _labels(record, labels, test_set, number)
            rows.append(_question(test_set, number, record) | {"answers": texts, "labels": told})
    texts_of = pa.list_(pa.string())
    schema = QUESTIONS.append(pa.field("answers", texts_of)).append(pa.field("labels", texts_of))
    return pa.Table.from_pylist(rows, schema=schema)


def _asked(test_set: TestSet, setting: str) -> dict[int, dict[str, Any]]:
    """The records of a test set by their lines, each with a question."""
    records = _records(test_set.path, f"{setting}.path", test_set.name)
    first, *others = test_set.fields
    for number, record in records.items():
        if not (_text(record, first) or "").strip():
            raise _no_text(setting, first, f"line {number + 1} of {test_set.path}", record)
    for field in others:
        if all(_text(record, field) is None for record in records.values()):
            some = next(iter(records.values()))
            raise _no_text(setting, field, f"any line of {test_set.path}", some)
    return records


def _question(test_set: TestSet, number: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `QUESTIONS`."""
    text = _joined(record, test_set.fields)
    return {"test_set": test_set.name, "question": number, "text": text}


def _labels(record: Mapping[str, Any], key: str, test_set: TestSet, number: int) -> list[str]:
    value = _at(record, key)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(
            f"judge.skills={key}: no list of texts there in line {number + 1} of "
            f"{test_set.path}, which has: {', '.join(record)}"
        )
    return value


def _answers(
    test_set: TestSet, asked: Mapping[int, Mapping[str, Any]], answers: Answers, setting: str
) -> list[str]:
    """A model's answers to the questions of a test set, in the order of their lines."""
    path = answers.path.replace("{test_set}", test_set.name)
    records = _records(path, f"{setting}.path", test_set.name)
    if records.keys() != asked.keys():
        raise UsageError(
            f"{setting}.path={path}: has {len(records)} answers, and {test_set.path} has "
            f"{len(asked)} questions; line for line they must be of the same question"
        )
    # An answer may lie under the question's key.
    fields = () if answers.field in test_set.fields else test_set.fields
    found = []
    for number, record in records.items():
        text = _text(record, answers.field)
        if text is None:
            raise _no_text(setting, answers.field, f"line {number + 1} of {path}", record)
        repeated = _joined(record, fields)
        if repeated and repeated != _joined(asked[number], fields):
            raise UsageError(
                f"{setting}.path={path}: line {number + 1} is of another question than line "
                f"{number + 1} of {test_set.path}; put the answers in the order of the questions"
            )
        found.append(text)
    return found


def _joined(record: Any, fields: Sequence[str]) -> str:
    return "\n".join(text for field in fields if (text := _text(record, field)))


def _records(path: str, setting: str, of: str) -> dict[int, dict[str, Any]]:
    """The JSON objects of a file, by their 0-based lines."""
    import fsspec

    try:
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer") as file:
            lines = file.read().split("\n")
    except FileNotFoundError as error:
        raise UsageError(f"{setting}={path}: no such file; name the JSON lines of {of}") from error
    except (OSError, EOFError, ImportError, ValueError) as error:
        raise UsageError(f"{setting}={path}: cannot be read: {error}") from error
    records = {
        number: _record(f"{setting}: {path}, line {number + 1}", line)
        for number, line in enumerate(lines)
        if line.strip()
    }
    if not records:
        raise UsageError(f"{setting}={path}: has no line; name the JSON lines of {of}")
    return records


def _record(place: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{place}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise UsageError(f"{place}: expected a JSON object with the text in it")
    return record


def _no_text(setting: str, field: str, where: str, record: dict[str, Any]) -> UsageError:
    return UsageError(
        f"{setting}.field={field}: no text there in {where}, which has: {', '.join(record)}. Set "
        "field to the key of the text"
    )


def _text(record: Any, field: str) -> str | None:
    """The string at a dotted key, None where there is none."""
    found = _at(record, field)
    return found if isinstance(found, str) else None


def _at(record: Any, field: str) -> Any:
    """What is at a dotted key, None where there is nothing."""
    for key in field.split("."):
        if isinstance(record, dict) and key in record:
            record = record[key]
        elif isinstance(record, list) and key.isdigit() and int(key) < len(record):
            record = record[int(key)]
        else:
            return None
    return record
