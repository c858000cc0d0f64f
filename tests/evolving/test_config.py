"""What the settings of the step refuse, before an engine starts."""

from pathlib import Path

import pytest

from tagsieve.engines.config import RayConfig
from tagsieve.errors import UsageError
from tagsieve.evolving import EvolveConfig, check_evolve
from tagsieve.evolving.prompts import generator_fingerprint, judge_fingerprint
from tagsieve.recipe import load_recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "conf" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipe_that_ships_is_one(path):
    recipe = load_recipe(str(path))
    if "evolve" in recipe.steps:
        check_evolve(recipe.evolve, recipe.ray)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"operators": ["deepen", "shorten"]}, r"evolve\.operators: 'shorten' is none .*constrai"),
        ({"prompt": "open_tags"}, "lacks {instruction}, {operator}"),
        ({"judge_prompt": "evolve_complexity"}, "lacks {variants}, {count}"),
        ({"scorer_prompt": "chat"}, r"evolve\.scorer_prompt=chat: has messages"),
        ({"generator": {"api_key_env": "NO_SUCH_KEY"}}, r"evolve\.generator\.api_key_env=NO_SUCH"),
        (
            {"judge": {"kind": "vllm", "model": "/no/such/model"}},
            "model '/no/such/model': no such folder",
        ),
    ],
)
def test_evolve_settings_that_cannot_work_are_refused_by_name(make_config, settings, said):
    with pytest.raises(UsageError, match=said):
        check_evolve(make_config(**settings), RayConfig())


def test_evolve_prompt_without_operators_is_refused(make_config, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text('text: "{instruction} {operator}"')
    with pytest.raises(UsageError, match="has no operators"):
        check_evolve(make_config(prompt=str(own)), RayConfig())
    own.write_text('{text: "{instruction} {operator}", operators: {longer: [1]}}')
    with pytest.raises(UsageError, match="expected text"):
        check_evolve(make_config(prompt=str(own)), RayConfig())
    own.write_text('{text: "{instruction} {operator}", operators: {longer: Make it longer.}}')
    check_evolve(make_config(prompt=str(own)), RayConfig())


def test_evolve_without_its_section_is_refused():
    with pytest.raises(UsageError, match=r"evolve: missing.*evolve\.generator"):
        check_evolve(None, RayConfig())


def test_evolve_generator_may_not_be_held_to_json(make_config):
    with pytest.raises(ValueError, match=r"generator\.guided_json"):
        make_config(generator={"guided_json": True})


def test_judge_that_is_not_named_is_the_generator_and_greedy(make_config):
    config = make_config(generator={"decoding": {"temperature": 0.7, "max_tokens": 300}})
    assert config.ranker.decoding.temperature == 0.0
    assert config.ranker.decoding.max_tokens == 300
    assert config.ranker.base_url == config.generator.base_url


def test_fingerprints_have_what_decides_the_answers_and_nothing_else(make_config):
    def both(**settings):
        config = make_config(**settings)
        return generator_fingerprint(config), judge_fingerprint(config)

    generator, judge = both()
    for same in (
        {"seeds": 5, "rounds": 3, "seed": 9, "name": "b", "path": "x", "operators": ["deepen"]},
        {"generator": {"commit_rows": 9, "base_url": "http://else/v1", "concurrency": 2}},
    ):
        assert both(**same) == (generator, judge)
    for settings, changes in (
        ({"max_chars": 10}, (True, False)),
        ({"what": "quality"}, (True, True)),
        ({"judge": {"kind": "http", "base_url": "http://x/v1", "model": "other"}}, (False, True)),
        ({"generator": {"decoding": {"temperature": 1.0}}}, (True, False)),  # greedy in any case
        ({"generator": {"decoding": {"max_tokens": 9}}}, (True, True)),
    ):
        found = both(**settings)
        assert (found[0] != generator, found[1] != judge) == changes


def test_config_is_of_the_papers_by_default():
    generator = {"kind": "http", "base_url": "http://x/v1", "model": "m"}
    config = EvolveConfig(what="complexity", name="n", generator=generator)
    assert (config.seeds, config.rounds) == (2000, 5)
