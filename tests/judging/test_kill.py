"""kill -9 in the middle of 5,000 judgements of pairs, then the same command: as if nothing had
been."""

import json
import random

import pytest
import yaml

from programs import SMALL, finish, kill, start, wait_for
from stub_judge import engine, judge_of, verdict
from tagsieve.lake import Lake

QUESTIONS = 2500
COMMIT_ROWS = 200
BIAS = 3


def write(tmp_path, count):
    """A test set and the answers of two models."""
    for name, key in (("asked", "q"), ("ours", "output"), ("theirs", "output")):
        rows = [json.dumps({key: f"{name} {n}"}) for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))


@pytest.fixture
def recipe(tmp_path, endpoint):
    write(tmp_path, QUESTIONS)
    endpoint.reply = judge_of(BIAS, 10)
    settings = {
        "lake": str(tmp_path / "lake"),
        "steps": ["judge"],
        "judge": {
            "task": "answers",
            "name": "killed",
            "path": str(tmp_path / "out"),
            "test_sets": [{"name": "t", "path": str(tmp_path / "asked.jsonl"), "field": "q"}],
            "answers": {m: {"path": str(tmp_path / f"{m}.jsonl")} for m in ("ours", "theirs")},
            "judges": {
                "stub": {"engine": engine(endpoint, concurrency=64, commit_rows=COMMIT_ROWS)}
            },
        },
    } | SMALL
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def assert_judged(lake, count):
    """Every pair once in each order, with the judge's scores."""
    rows = lake.arrow("judgements").to_pylist()
    assert len({row["judgement_id"] for row in rows}) == len(rows) == 2 * count
    assert lake.arrow("quarantine").num_rows == 0
    expected = []
    for n in range(count):
        for first, second in ((f"ours {n}", f"theirs {n}"), (f"theirs {n}", f"ours {n}")):
            expected.append([float(score) for score in verdict(first, second, BIAS, 10)])
    found = [[item["score"] for item in row["items"]] for row in rows]
    assert sorted(found) == sorted(expected)


@pytest.mark.soak
def test_killed_in_the_middle_nothing_is_lost_and_a_micro_batch_repeated_at_most(
    recipe, endpoint, tmp_path
):
    lake = Lake(str(tmp_path / "lake"))
    endpoint.delay = 0.02
    process = start("judge", recipe)
    point = random.Random(3).randrange(1000, 4000)
    wait_for(lambda: sum(endpoint.calls.values()) >= point, process)
    kill(process)
    assert lake.arrow("judgements").num_rows >= point - COMMIT_ROWS
    finish(start("judge", recipe))
    assert_judged(lake, QUESTIONS)
    assert sum(endpoint.calls.values()) - 2 * QUESTIONS <= COMMIT_ROWS
    # One hundredth more of the questions costs one hundredth more.
    before = sum(endpoint.calls.values())
    write(tmp_path, QUESTIONS + 25)
    finish(start("judge", recipe))
    assert_judged(lake, QUESTIONS + 25)
    assert sum(endpoint.calls.values()) - before == 50
