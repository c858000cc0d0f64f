"""Records of every known shape become turns; the others say what is wrong with them."""

import json

import pytest

from tagsieve.ingest import Input
from tagsieve.ingest.config import FieldMap
from tagsieve.lake import Lake

S, U, A, T = "system", "user", "assistant", "tool"


def said(role, content):
    return {"role": role, "content": content}


# name: record, turns, meta
GOOD = {
    "alpaca": (
        {"instruction": "q1", "output": "r"},
        [(U, "q1"), (A, "r")],
        {},
    ),
    "alpaca input": (
        {"instruction": "q2", "input": "i\n", "output": "r", "id": 7, "tags": ["x"], "none": None},
        [(U, "q2\ni\n"), (A, "r")],
        {"input": "i\n", "id": "7", "tags": '["x"]'},
    ),
    "alpaca blank input": (
        {"instruction": "q3", "input": " ", "output": "r"},
        [(U, "q3"), (A, "r")],
        {"input": " "},
    ),
    "alpaca input alone": (
        {"instruction": "", "input": "only", "output": "r"},
        [(U, "\nonly"), (A, "r")],
        {"input": "only"},
    ),
    "alpaca history": (
        {
            "instruction": "q4",
            "output": "r4",
            "system": "be brief",
            "history": [["q0", "r0"], ["q1", "r1"]],
        },
        [(S, "be brief"), (U, "q0"), (A, "r0"), (U, "q1"), (A, "r1"), (U, "q4"), (A, "r4")],
        {},
    ),
    "alpaca void": (
        {"instruction": "q5", "input": None, "output": "r", "system": None, "history": []},
        [(U, "q5"), (A, "r")],
        {},
    ),
    "sharegpt": (
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "h"},
                {"from": " GPT ", "value": "g"},
            ],
            "system": "not a part of the list",
        },
        [(S, "s"), (U, "h"), (A, "g")],
        {"system": "not a part of the list"},
    ),
    "conversation": (
        {"conversation": [{"role": "prompter", "value": "h2"}, {"from": "bot", "content": "g"}]},
        [(U, "h2"), (A, "g")],
        {},
    ),
    "messages": (
        {
            "messages": [said("system", "s"), said("user", "m1"), said("assistant", "a")],
            "prompt": "m1",
            "prompt_id": "x1",
        },
        [(S, "s"), (U, "m1"), (A, "a")],
        {"prompt": "m1", "prompt_id": "x1"},
    ),
    "messages tool": (
        {
            "messages": [
                said("user", "m2"),
                {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]},
                said("tool", "42"),
                {"role": "assistant", "content": "", "tool_calls": [{"name": "g"}]},
                said("function", "43"),
                {"role": "assistant", "content": "a", "tool_calls": []},
            ]
        },
        [(U, "m2"), (A, '[{"name":"f"}]'), (T, "42"), (A, '[{"name":"g"}]'), (T, "43"), (A, "a")],
        {},
    ),
    "messages parts": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "m"}, {"type": "text", "text": "3"}],
                },
                said("assistant", "a"),
            ]
        },
        [(U, "m\n3"), (A, "a")],
        {},
    ),
    "completion": (
        {"prompt": "p", "completion": "c", "template": "t"},
        [(U, "p"), (A, "c")],
        {"template": "t"},
    ),
    "question": (
        {"question": "w", "answer": "x", "system": "s"},
        [(S, "s"), (U, "w"), (A, "x")],
        {},
    ),
    "text as it came": (
        {"prompt": " cafe\u0301\t\u00a0x\r\n", "completion": "\ufb01 \u200b"},
        [(U, " cafe\u0301\t\u00a0x\r\n"), (A, "\ufb01 \u200b")],
        {},
    ),
    "lone surrogate": (
        {"prompt": "a\ud800b", "completion": "c"},
        [(U, "a?b"), (A, "c")],
        {},
    ),
}

BAD = [
    ({}, "unknown_format"),
    ({"text": "no shape"}, "unknown_format"),
    ({"input": "i", "system": "s"}, "unknown_format"),
    ({"instruction": 5, "output": "r"}, "wrong_type"),
    ({"instruction": "q", "output": ["r"]}, "wrong_type"),
    ({"instruction": "q", "input": {"a": 1}, "output": "r"}, "wrong_type"),
    ({"instruction": "q", "output": "r", "system": True}, "wrong_type"),
    ({"instruction": "q", "output": "r", "history": "q0"}, "wrong_type"),
    ({"instruction": "q", "output": "r", "history": [["q0"]]}, "wrong_type"),
    ({"instruction": "q", "output": "r", "history": [["q0", 1]]}, "wrong_type"),
    ({"messages": "hello"}, "wrong_type"),
    ({"messages": ["hello"]}, "wrong_type"),
    ({"messages": [said("user", "q"), said("assistant", 3)]}, "wrong_type"),
    ({"messages": [said("user", [{"type": "image_url", "image_url": "u"}])]}, "wrong_type"),
    ({"messages": [{"content": "q"}, said("assistant", "r")]}, "missing_role"),
    ({"messages": [said("user", "q"), said("narrator", "r")]}, "unknown_role"),
    ({"conversations": [{"from": "alien", "value": "q"}]}, "unknown_role"),
    ({"messages": []}, "no_human_turn"),
    ({"messages": [said("assistant", "r")]}, "no_human_turn"),
    ({"output": "r"}, "no_human_turn"),
    ({"instruction": None, "output": "r"}, "no_human_turn"),
    ({"instruction": " \u2003\u0085\n", "output": "r"}, "empty_query"),
    ({"instruction": "q", "output": "r", "history": [[None, "r0"]]}, "empty_query"),
    ({"messages": [said("user", "q"), said("assistant", "r"), said("user", "q")]}, "no_response"),
    ({"messages": [said("user", "q")]}, "no_response"),
    ({"instruction": "q"}, "empty_response"),
    ({"instruction": "q", "output": None}, "empty_response"),
    ({"instruction": "q", "output": "\t\u3000\n"}, "empty_response"),
    ({"instruction": "q", "output": "r", "history": [["q0", None]]}, "empty_response"),
    ({"messages": [said("user", "q"), {"role": "assistant"}]}, "empty_response"),
]

FIELDS = {
    "flat": (
        {"query": "ask", "input": "context", "response": "reply", "system": "role"},
        {"ask": "q", "context": "i", "reply": "r", "role": "s", "messages": "not these", "n": 1},
        [(S, "s"), (U, "q\ni"), (A, "r")],
        {"messages": "not these", "n": "1"},
    ),
    "nested": (
        {"query": "data.in.text", "response": "data.out", "history": "before"},
        {"data": {"in": {"text": "q"}, "out": "r"}, "before": [["a", "b"]], "n": 1},
        [(U, "a"), (A, "b"), (U, "q"), (A, "r")],
        {"n": "1"},
    ),
    "turns": (
        {"turns": "chat.log", "role": "who", "content": "text"},
        {"chat": {"log": [{"who": "User", "text": "q"}, {"who": "model", "text": "r"}]}, "n": 1},
        [(U, "q"), (A, "r")],
        {"n": "1"},
    ),
}

BOTH = {
    "prompt": "p",
    "completion": "c",
    "question": "w",
    "answer": "x",
    "messages": [said("user", "m"), said("assistant", "a")],
}
FORMATS = {"auto": "m", "completion": "p"}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory, run_ingest, write):
    """One run over good records, bad records, field maps and set formats."""
    root = tmp_path_factory.mktemp("shapes")
    # ASCII escapes, since a lone surrogate has no UTF-8.
    good = "\n".join(json.dumps(record) for record, *_ in GOOD.values())
    bad = [record for record, _ in BAD]
    inputs = [
        Input(pool="good", path=write(root / "good.jsonl", good)),
        Input(pool="bad", path=write(root / "bad.jsonl", bad)),
    ]
    for name, (fields, record, *_) in FIELDS.items():
        path = write(root / f"{name}.jsonl", [record, {"other": 1}])
        inputs.append(Input(pool=f"fields-{name}", path=path, fields=FieldMap(**fields)))
    both = write(root / "both.jsonl", [BOTH, {"instruction": "q", "output": "r"}])
    inputs += [Input(pool=f"format-{name}", path=both, format=name) for name in FORMATS]
    return run_ingest(Lake(str(root / "lake")), inputs)


def turns_of(row):
    return [(turn["role"], turn["content"]) for turn in row["turns"]]


@pytest.mark.parametrize("name", GOOD)
def test_shape_known_record_becomes_turns_and_meta(ingested, name):
    _, turns, meta = GOOD[name]
    row = {row["source_row"]: row for row in ingested.samples("good")}[list(GOOD).index(name)]
    assert turns_of(row) == turns
    assert row["meta"] == meta
    assert len(row["query_ids"]) == sum(role == U for role, _ in turns)


@pytest.mark.parametrize("number", range(len(BAD)))
def test_shape_bad_record_is_refused_with_its_reason_and_bytes(ingested, number):
    record, reason = BAD[number]
    row = {row["source_row"]: row for row in ingested.rejects("bad")}[number]
    assert row["reason"] == reason
    assert json.loads(row["payload"]) == record
    assert row["sample_id"] is None


def test_shape_every_record_is_a_sample_or_a_reject(ingested):
    assert len(ingested.samples("good")) == len(GOOD)
    assert ingested.rejects("good") == ingested.samples("bad") == []
    assert len(ingested.rejects("bad")) == len(BAD)


@pytest.mark.parametrize("name", FIELDS)
def test_shape_field_map_says_where_the_parts_lie(ingested, name):
    _, _, turns, meta = FIELDS[name]
    (row,) = ingested.samples(f"fields-{name}")
    assert turns_of(row) == turns
    assert row["meta"] == meta
    assert ingested.reasons(f"fields-{name}") == {1: "unknown_format"}


@pytest.mark.parametrize("name", FORMATS)
def test_shape_format_that_is_set_wins_over_the_fields_found(ingested, name):
    first, *others = ingested.samples(f"format-{name}")
    assert turns_of(first)[0] == (U, FORMATS[name])
    assert [turns_of(row)[0] for row in others] == ([(U, "q")] if name == "auto" else [])
    refused = {} if name == "auto" else {1: "unknown_format"}
    assert ingested.reasons(f"format-{name}") == refused
