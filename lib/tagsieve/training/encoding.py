"""Rows as token ids, by Spark: what is trained on, and what is left out and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from jinja2 import TemplateError
from pyspark.sql import DataFrame

from tagsieve.engines.conversations import Part, chat_parts, conversation_parts
from tagsieve.engines.llm.prompts import PromptTemplate
from tagsieve.errors import UsageError
from tagsieve.training.tokens import IGNORED, exchanges_of, labelled

NO_ANSWER, OVERLONG, TEMPLATE = "no_answer", "overlong", "template"
"""Why a row is left out: it has nothing that is trained on; it has more tokens than fit; the
model's chat template refuses its turns, or writes earlier ones anew when later ones come."""

_IDS = "array<int>"
_COMMON = "id string, place {place}, tokens long, trained long, reason string"
_BATCH = 512

Row = dict[str, Any]


@dataclass(frozen=True)
class Encoding:
    """How the rows of a task become token ids; goes to Spark's workers.

    `parts`: the conversations of a row: one, of a preference pair two, which differ in their last
    answer; none for a row without an answer. `special`: whether the tokenizer's own signs stand
    before a conversation. `truncate`: whether a longer one loses its end.
    """

    tokenizer: Any
    parts: Callable[[Row], list[list[Part]]]
    special: bool
    max_tokens: int
    truncate: bool = False
    pairs: bool = False


def encode(rows: DataFrame, encoding: Encoding) -> DataFrame:
    """`id`, `place`; `input_ids` and `labels`, or of pairs `prompt_ids`, `chosen_ids` and
    `rejected_ids`; `tokens`: their number before anything is cut, `trained`: that of those with a
    loss; `reason`: why the row is left out, else null."""
    place = rows.schema["place"].dataType.simpleString()
    names = ("prompt_ids", "chosen_ids", "rejected_ids") if encoding.pairs else (
        "input_ids", "labels"
    )  # fmt: skip
    schema = ", ".join([_COMMON.format(place=place), *(f"{name} {_IDS}" for name in names)])
    return rows.mapInArrow(partial(_encoded, encoding=encoding, names=names), schema)


def _encoded(
    batches: Iterable[pa.RecordBatch], encoding: Encoding, names: tuple[str, ...]
) -> Iterator[pa.RecordBatch]:
    ids = pa.list_(pa.int32())
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            part = batch.slice(start, _BATCH)
            rows = _rows(part.to_pylist(), encoding)
            columns = [
                part["id"],
                part["place"],
                pa.array([row["tokens"] for row in rows], pa.int64()),
                pa.array([row["trained"] for row in rows], pa.int64()),
                pa.array([row["reason"] for row in rows], pa.string()),
                *(pa.array([row["ids"][n] for row in rows], ids) for n in range(len(names))),
            ]
            yield pa.RecordBatch.from_arrays(
                columns, ["id", "place", "tokens", "trained", "reason", *names]
            )


def _rows(rows: list[Row], encoding: Encoding) -> list[Row]:
    told = [_parts(row, encoding) for row in rows]
    conversations = [parts or [] for parts in told]
    flat = [parts for of_row in conversations for parts in of_row]
    found = iter(exchanges_of(flat, encoding.tokenizer, encoding.special))
    made = _pair if encoding.pairs else _conversation
    encoded = [made([next(found) for _ in of_row], encoding) for of_row in conversations]
    return [
        row | {"reason": TEMPLATE} if parts is None else row
        for row, parts in zip(encoded, told, strict=True)
    ]


def _parts(row: Row, encoding: Encoding) -> list[list[Part]] | None:
    """The conversations of a row; None where the model's chat template refuses them."""
    try:
        return encoding.parts(row)
    except (TemplateError, UsageError):
        return None


def _conversation(found: list[Any], encoding: Encoding) -> Row:
    ids, labels = labelled(found[0]) if found else ([], [])
    tokens = len(ids)
    reason = None if found and found[0] else NO_ANSWER
    if tokens > encoding.max_tokens:
        ids, labels = ids[: encoding.max_tokens], labels[: encoding.max_tokens]
        if not encoding.truncate or all(label == IGNORED for label in labels):
            reason = OVERLONG
    trained = sum(label != IGNORED for label in labels)
    return {"tokens": tokens, "trained": trained, "reason": reason, "ids": (ids, labels)}


def _pair(found: list[Any], encoding: Encoding) -> Row:
    if not found:
        return {"tokens": 0, "trained": 0, "reason": NO_ANSWER, "ids": ([], [], [])}
    (*before, chosen), (*_, rejected) = found
    prompt = [*labelled(before)[0], *chosen.prompt]
    answers = (chosen.own, rejected.own)
    tokens = len(prompt) + max(map(len, answers))
    reason = OVERLONG if tokens > encoding.max_tokens else None
    trained = sum(map(len, answers))
    return {"tokens": tokens, "trained": trained, "reason": reason, "ids": (prompt, *answers)}


def conversation(row: Row, template: Any, tokenizer: Any) -> list[list[Part]]:
    """The parts of `turns`, with the input `given`."""
    return [conversation_parts(row["turns"], template, tokenizer, row["given"])]


def tagging(row: Row, prompt: PromptTemplate, tokenizer: Any) -> list[list[Part]]:
    """A tagger's prompt with a query, and the JSON of its `tags`; none where it has no tag."""
    if not row["tags"]:
        return []
    listed = [{"tag": tag["tag"], "explanation": tag["explanation"] or ""} for tag in row["tags"]]
    answer = json.dumps(listed, ensure_ascii=False)
    asked = prompt.render({"query": row["text"]})
    if not isinstance(asked, str):
        return [chat_parts([*asked, {"role": "assistant", "content": answer}], tokenizer)]
    # The space belongs to the first token of the answer, see the prompt's file.
    return [[Part(asked, False), Part(f" {answer}{tokenizer.eos_token}", True)]]


def completion(row: Row, tokenizer: Any) -> list[list[Part]]:
    """A `prompt` and its `completion`, as they are."""
    return [[Part(row["prompt"], False), Part(row["completion"] + tokenizer.eos_token, True)]]


def preference(row: Row, template: Any, tokenizer: Any) -> list[list[Part]]:
    """`turns`, answered as it was `chosen`, and as it was `rejected`; none where both are one."""
    if row["chosen"] == row["rejected"]:
        return []
    return [
        conversation_parts(
            [*row["turns"], {"role": "assistant", "content": row[answer]}], template, tokenizer
        )
        for answer in ("chosen", "rejected")
    ]
