"""What a recipe may say of mixtures, and what is refused before anything runs."""

from pathlib import Path

import pytest

from mixed import mix_config
from tagsieve.config import validate
from tagsieve.errors import UsageError
from tagsieve.recipe import Recipe, load_recipe

BASE = {"lake": "x", "inputs": [{"path": "a", "pool": pool} for pool in "aba"]}
MANY = {f"p{n}": [f"q{n}"] for n in range(9)}


def recipe(mix, **more):
    return validate(Recipe, BASE | {"mix": mix} | more, "recipe")


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({}, "mix.each: missing; it has no default"),
        ({"each": 0}, "mix.each: got 0; input should be greater than or equal to 1"),
        ({"strategy": "equals"}, "mix: no kind 'equals'; did you mean 'equal'?"),
        ({"each": 1, "name": "a/b"}, 'mix.name: got "a/b"; string should match pattern'),
        ({"each": 1, "parts": {"g": []}}, "mix.parts.g: got []; tuple should have at least 1"),
        ({"each": 1, "parts": {"g": ["a", "b"], "c": ["a"]}}, "parts name the pool a twice;"),
        ({"strategy": "counts", "counts": {"a": 0}}, "mix.counts.a: got 0; input should be"),
        ({"strategy": "counts", "counts": {"c": 1}}, "mix.counts names c; the parts are a, b"),
        (
            {"strategy": "proportions", "size": 3},
            "set either shares (by part) or shares_of (a selection whose shares to take)",
        ),
        (
            {"strategy": "proportions", "size": 3, "shares": {"a": 0.5, "b": 0.4}},
            "the shares sum to 0.9; make them sum to 1",
        ),
        (
            {"strategy": "proportions", "size": 3, "shares": {"a": 0.5, "c": 0.5}},
            "mix.shares names c; the parts are a, b",
        ),
        (
            {"strategy": "temperature", "size": 3, "temperature": 0.5},
            "mix.temperature: got 0.5; input should be greater than or equal to 1",
        ),
        ({"strategy": "ratios", "base": "c"}, "mix.base names c; the parts are a, b"),
        (
            {"strategy": "ratios", "base": "g", "parts": {"g": ["a"]}},
            "mix.base=g is the only part; name another in mix.parts",
        ),
        (
            {"strategy": "ratios", "base": "a", "ratios": [2, 2.0]},
            "mix.ratios makes the mixture mix-r2 twice; name each value once",
        ),
        ({"strategy": "sizes", "sizes": [3, 3]}, "mix.sizes makes the mixture mix-n3 twice"),
        (
            {"strategy": "combinations", "parts": MANY},
            "9 parts have 512 combinations; name at most 8 in mix.parts",
        ),
        (
            {"strategy": "combinations", "parts": {"a": ["a"], "b": ["b"], "a-b": ["c"]}},
            "two combinations of mix.parts have one name",
        ),
        (
            {"each": 1, "tokens_by": ["words"]},
            "mix.tokens_by names words, which is no scorer of kind length in score.scorers (there",
        ),
    ],
)
def test_mix_that_cannot_be_made_is_refused_with_its_key(mix, said):
    with pytest.raises(UsageError) as error:
        recipe(mix)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({"each": 1}, "mix.parts is empty, and there are no inputs"),
        ({"strategy": "tags", "size": 1, "shares": {"t": 1}}, "mix.pools is empty, and there are"),
    ],
)
def test_mix_without_pools_is_refused(mix, said):
    with pytest.raises(UsageError, match=said):
        recipe(mix, inputs=[], steps=["mix"])


def test_mix_parts_default_to_the_input_pools_and_tags_to_their_own():
    assert recipe({"each": 1}).mix.pools_of(["a", "b"]) == {"a": ("a",), "b": ("b",)}
    config = mix_config({"strategy": "tags", "size": 1, "shares": {"t": 0.5, "u": 0.5}})
    assert config.pools_of(["a", "b"]) == {"t": ("a", "b"), "u": ("a", "b")}
    assert (config.reads, config.unit) == ({"tags"}, "rows")
    tokens = mix_config({"each": 1, "tokens_by": ["w"], "selection": "s"})
    assert (tokens.reads, tokens.unit) == ({"scores", "selections"}, "tokens")


def test_mix_tokens_by_may_name_scorers_of_kind_length():
    lengths = {"kind": "length", "name": "w", "tokenizer": "words"}
    assert recipe({"each": 1, "tokens_by": ["w"]}, score={"scorers": [lengths]}).mix.tokens_by == (
        "w",
    )
    turns = {"kind": "turns", "name": "t"}
    with pytest.raises(UsageError, match=r"no scorer of kind length in score.scorers \(w\)"):
        recipe({"each": 1, "tokens_by": ["t"]}, score={"scorers": [lengths, turns]})


def test_mix_recipe_that_ships_is_the_first_study_of_the_paper():
    path = Path(__file__).resolve().parents[2] / "conf/recipes/mixing.yaml"
    shipped = load_recipe(str(path))
    config = shipped.mix
    assert config.names(shipped.pools) == [
        f"mix-{name}" for name in ("A", "C", "P", "A-C", "A-P", "C-P", "A-C-P")
    ]
    assert (config.each, config.subtask, config.cap) == (20_000, "template", 1_000)
    assert (config.over_ask, config.dedupe) == ("error", "pools")
