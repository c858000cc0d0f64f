"""The job as a program: planned, killed from outside, run again; and a judge in the real vLLM."""

import json

import pytest
import yaml

from evolved import pair
from handmade import put, rows_of
from programs import SMALL, finish, kill, start, wait_for
from tagsieve.engines.llm.config import VllmConfig
from tagsieve.plan import plan
from tagsieve.recipe import load_recipe
from tiny_llama import FAST

SEEDS = 40


@pytest.fixture
def recipe(lake, make_config, tmp_path):
    config = make_config(generator={"concurrency": 4, "commit_rows": 8})
    settings = {
        "lake": lake.root,
        "steps": ["evolve"],
        "evolve": config.model_dump(),
    } | SMALL
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(settings))))
    put(lake, "samples", [pair(f"Question {n}") for n in range(SEEDS)])
    return str(path)


def test_evolve_is_planned_by_its_calls(recipe):
    (step,) = plan(load_recipe(recipe), ["evolve"])
    assert (step.rows, step.unit, step.seconds) == (40, "seeds", None)
    assert step.what == "complexity, 2 rounds; at most 120 calls"


@pytest.mark.slow
@pytest.mark.soak
def test_evolve_job_killed_in_the_second_round_goes_on(lake, recipe, script, training_set):
    script.endpoint.delay = 0.05
    process = start("evolve", recipe)
    wait_for(lambda: len(script.evolved) >= SEEDS + 15, process)
    kill(process)
    assert "40 seeds = 40 kept" in finish(start("evolve", recipe))
    texts = [row["text"] for row in rows_of(lake, "generations")]
    assert sorted(texts) == sorted(
        f"Question {n}" + " and more" * times for n in range(SEEDS) for times in (1, 2)
    )
    assert len(rows_of(lake, "judgements")) == SEEDS
    assert len(training_set()) == 3 * SEEDS
    assert script.calls - 3 * SEEDS <= 8


@pytest.mark.soak
def test_evolve_judge_in_vllm_is_held_to_a_score_of_each_number(
    lake, make_config, run, add_pairs, script, tiny_llama
):
    judge = {"kind": "vllm", "model": tiny_llama, "dtype": "float32", "guided_json": True}
    config = make_config(judge=judge | {"engine_args": FAST}, rounds=1)
    assert isinstance(config.judge, VllmConfig)
    add_pairs(*[f"Question {n}" for n in range(12)])
    done = run(config)
    # Random weights name a variant twice more often than not.
    raws = [row["raw"] for row in rows_of(lake, "judgements")]
    raws += [row["payload"].decode() for row in rows_of(lake, "quarantine")]
    assert done.kept + done.quarantined["incomplete"] == len(raws) == 12
    for raw in raws:
        scores = json.loads(raw)["scores"]
        assert len(scores) == 2
        assert all(item["variant"] in (1, 2) and item["score"] in range(1, 7) for item in scores)
