"""A judge in the real vLLM, held to the form of its answers."""

import json

import pytest

from handmade import recorded, rows_of
from judging.test_pairs import CLUSTERING, add
from tagsieve.config import validate
from tagsieve.judging import PairSources, judge, task_of
from tagsieve.judging.config import JudgePairsConfig
from tiny_llama import FAST

pytestmark = [pytest.mark.slow, pytest.mark.soak]


def test_a_guided_judge_of_random_weights_scores_both(lake, engines, tiny_llama):
    add(lake, {0: range(6), 1: range(6, 9)})
    engine = {
        "kind": "vllm",
        "model": tiny_llama,
        "dtype": "float32",
        "guided_json": True,
        "decoding": {"max_tokens": 1600},
        "engine_args": FAST,
    }
    config = validate(JudgePairsConfig, {"engine": engine}, "t")
    task = task_of(config, PairSources(CLUSTERING))
    line = recorded(lake, engines, "judge", "r1", judge, task)
    # Random weights may talk on until they are cut.
    assert line.kept + line.quarantined["unparseable"] == line.input == 10
    for row in rows_of(lake, "judgements"):
        told = json.loads(row["raw"])
        assert [told["first"], told["second"]] == [item["score"] for item in row["items"]]
        assert all(1 <= item["score"] <= 100 for item in row["items"])
