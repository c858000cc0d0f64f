"""Planted questions of all test sets in a real pool: how many are found, and what else is."""

import gzip
import json

import pytest

from handmade import put, recorded, rows_of, sample
from planted import REPLY, planted, recall
from tagsieve import records
from tagsieve.screening import ScreenConfig, screen
from tagsieve.test_sets.config import TestSet as Questions
from tagsieve.test_sets.reading import read_questions

FIELDS = {
    "ifeval": "prompt",
    "koala": "prompt",
    "lima": "conversations.0",
    "sinstruct": ("instruction", "instances.0.input"),
    "vicuna": "text",
    "wizardlm": "Instruction",
}


@pytest.mark.slow
def test_planted_questions_are_found_by_kind_of_edit_and_hardly_anything_else(
    shared_data, lake, engines
):
    test_sets = [
        Questions(name=name, path=str(shared_data / "eval" / f"{name}.jsonl.gz"), field=field)
        for name, field in FIELDS.items()
    ]
    with gzip.open(shared_data / "pools" / "dolly_3k.jsonl.gz", "rt") as lines:
        pool = [json.loads(line) for line in lines]
    asked = [f"{row['instruction']}\n{row['input']}".strip() for row in pool]
    vocabulary = " ".join(asked).split()
    rows = planted(read_questions(test_sets).to_pylist()[::4], vocabulary)
    talks = {}
    for text in (*asked, *(text for _, _, text in rows)):
        turns = [("user", text), ("assistant", REPLY)]
        talks[records.sample_id(turns)] = sample("p", records.sample_id(turns), turns=turns)
    put(lake, "samples", list(talks.values()))
    config = ScreenConfig(near_duplicates=None, test_sets=test_sets)
    recorded(lake, engines, "screen", "r0", screen, config, ["p"])
    found = {
        (row["sample_id"], row["test_set"], row["question"])
        for row in rows_of(lake, "contaminations")
    }
    ids = [records.sample_id([("user", text), ("assistant", REPLY)]) for _, _, text in rows]
    shares = recall(rows, ids, found)
    assert shares.pop("verbatim") == shares.pop("case") == shares.pop("punctuation") == 1.0
    assert min(shares.values()) > 0.94, shares
    of_pool = [records.sample_id([("user", text), ("assistant", REPLY)]) for text in asked]
    others = {key for key, *_ in found} & (set(of_pool) - set(ids))
    assert len(others) <= 3
