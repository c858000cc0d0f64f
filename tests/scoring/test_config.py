"""What a recipe may say of scorers, and their fingerprints."""

import shutil

import pytest

from scored import add_pairs
from tagsieve.config import validate
from tagsieve.engines.config import RayConfig
from tagsieve.errors import UsageError
from tagsieve.plan import plan
from tagsieve.recipe import DEFAULT_STEPS, Recipe
from tagsieve.scoring import ScoreConfig, check_scorers, scorer_fingerprints


def fingerprint(**settings):
    config = ScoreConfig(scorers=[{"name": "s", **settings}])
    return scorer_fingerprints(config, "v1")["s"]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({"scorers": [{"kind": "length", "name": "n"}]}, r"scorers.0.tokenizer: missing"),
        ({"scorers": [{"kind": "turns", "name": "a b"}]}, r"scorers.0.name: got \"a b\""),
        ({"scorers": [{"kind": "turns", "name": "t"}] * 2}, "two scorers are called t"),
        ({"scorers": [{"kind": "ifd", "name": "i", "modle": "m"}]}, "did you mean 'model'"),
        ({"scorers": [{"kind": "iffy", "name": "i"}]}, "did you mean 'ifd'"),
    ],
)
def test_a_wrong_scorer_is_refused_with_what_would_be_right(score, message):
    with pytest.raises(UsageError, match=message):
        validate(Recipe, {"lake": "x", "steps": ["score"], "score": score}, "recipe")


def test_score_is_a_step_only_where_a_recipe_lists_it():
    assert "score" not in DEFAULT_STEPS
    assert Recipe(lake="x", steps=["analyze", "score", "select"]).steps[1] == "score"
    with pytest.raises(ValueError, match="must follow this order"):
        Recipe(lake="x", steps=["select", "score"])


def test_fingerprint_has_the_weights_and_not_the_place(tiny_llama, tmp_path):
    moved = shutil.copytree(tiny_llama, tmp_path / "elsewhere")
    one = fingerprint(kind="ifd", model=tiny_llama)
    assert fingerprint(kind="ifd", model=str(moved)) == one
    assert one.startswith("ifd-")
    settings = [
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"max_tokens": 64},
        {"prompt": "chat"},
        {"context": "conversation"},
        {"overlong": "truncate"},
        {"backend": "vllm"},
        {"kind": "response_loss"},
    ]
    found = [fingerprint(**({"kind": "ifd", "model": tiny_llama} | each)) for each in settings]
    assert len(set(found)) == len(settings)
    changed = shutil.copytree(tiny_llama, tmp_path / "changed")
    (changed / "config.json").write_text("{}")
    assert fingerprint(kind="ifd", model=str(changed)) != one


def test_fingerprint_of_a_length_has_the_tokenizer_alone(tiny_llama, tmp_path):
    one = fingerprint(kind="length", tokenizer=tiny_llama)
    moved = shutil.copytree(tiny_llama, tmp_path / "elsewhere")
    (moved / "model.safetensors").unlink()
    assert fingerprint(kind="length", tokenizer=str(moved)) == one
    assert fingerprint(kind="length", tokenizer=tiny_llama, of="instruction") != one
    assert fingerprint(kind="length", tokenizer="words") == "length-response-words"


def test_fingerprint_of_tags_names_the_version():
    assert fingerprint(kind="tags") == "tags-v1"
    with pytest.raises(UsageError, match="counts the tags of an ontology version"):
        scorer_fingerprints(ScoreConfig(scorers=[{"kind": "tags", "name": "t"}]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scorers": []}, r"score\.scorers is empty"),
        ({"scorers": [{"kind": "ifd", "name": "i", "model": "/no/such"}]}, "'/no/such': no such"),
        ({"scorers": [{"kind": "length", "name": "l", "tokenizer": "/no/such"}]}, "no such folder"),
        (
            {"scorers": [{"kind": "turns", "name": "t"}], "engine_args": {"quantization": "fp8"}},
            "quantization may change the scores",
        ),
    ],
)
def test_what_is_not_there_is_refused_before_an_engine_starts(settings, message):
    with pytest.raises(UsageError, match=message):
        check_scorers(ScoreConfig(**settings), RayConfig())


def test_more_gpus_than_there_are_and_unfit_prompts_are_refused(tiny_llama, tmp_path):
    ifd = {"kind": "ifd", "name": "i", "model": tiny_llama}
    config = ScoreConfig(scorers=[ifd], replicas=2, gpus_per_replica=99)
    with pytest.raises(UsageError, match=r"score\.replicas=2 .* need 198 GPUs"):
        check_scorers(config, RayConfig())
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("text: Answer!")
    config = ScoreConfig(scorers=[{**ifd, "prompt": str(prompt)}])
    with pytest.raises(UsageError, match=r"lacks \{instruction\}"):
        check_scorers(config, RayConfig())


def test_plan_of_score_counts_the_scores_and_has_no_time_for_a_model_that_never_ran(
    lake, tiny_llama
):
    add_pairs(lake)
    turns = {"kind": "turns", "name": "turns"}
    ifd = {"kind": "ifd", "name": "ifd", "model": tiny_llama}
    for scorers, timed in (([turns], True), ([turns, ifd], False)):
        recipe = Recipe(lake=lake.root, steps=["score"], score={"scorers": scorers})
        (planned,) = plan(recipe, ["score"])
        assert (planned.rows, planned.unit) == (5 * len(scorers), "scores")
        assert (planned.seconds is not None) == timed
