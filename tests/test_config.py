"""Recipes: what is refused, what the message says, and dotted overrides."""

import os
import subprocess
import sys

import pytest
import yaml

from tagsieve.config import RecipeModel, apply_overrides, validate
from tagsieve.errors import UsageError
from tagsieve.recipe import DEFAULT_STEPS, Recipe, load_recipe

INPUTS = [{"path": "a.jsonl", "pool": "alpaca"}, {"path": "b.json", "pool": "code"}]
SMALLEST = {"lake": "lakes/x", "inputs": INPUTS}


def errors_of(values):
    with pytest.raises(UsageError) as caught:
        validate(Recipe, values, "recipe r.yaml")
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "r.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_recipe_smallest_has_all_steps_and_defaults(recipe_file):
    recipe = load_recipe(recipe_file(yaml.safe_dump(SMALLEST)))
    assert recipe.steps == DEFAULT_STEPS
    assert recipe.inputs[0].pool == "alpaca"
    assert recipe.inputs[0].shape == "auto"
    assert recipe.ingest.empty_response == "reject"
    assert recipe.ingest.max_chars == 1_000_000


def test_recipe_loaded_never_changes(recipe_file):
    recipe = load_recipe(recipe_file(yaml.safe_dump(SMALLEST)))
    with pytest.raises(ValueError, match="frozen"):
        recipe.lake = "elsewhere"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lakes": "x"}, "lakes: unknown key; did you mean 'lake'?"),
        (
            {"normalize": {"mincount": 3}},
            "normalize.mincount: unknown key; did you mean 'min_count'",
        ),
        ({"normalize": {"rule": {"stem": 1}}}, "normalize.rule.stem: unknown key; did you mean"),
        (
            {"inputs": [{**INPUTS[0], "fields": {"query": "q", "respons": "r"}}]},
            "inputs.0.fields.respons: unknown key; did you mean 'response'?",
        ),
        ({"ingest": {"zzz": 1}}, "ingest.zzz: unknown key; known here: empty_response, languages"),
    ],
)
def test_recipe_unknown_key_is_named_with_the_closest_one(change, said):
    assert said in errors_of(SMALLEST | change)


@pytest.mark.parametrize(
    ("change", "key", "value", "said"),
    [
        ({"normalize": {"min_count": "many"}}, "normalize.min_count", '"many"', "valid integer"),
        ({"normalize": {"min_count": 0}}, "normalize.min_count", "0", "greater than or equal to 1"),
        ({"ingest": {"empty_response": "drop"}}, "ingest.empty_response", '"drop"', "'reject'"),
        ({"ingest": {"languages": "en"}}, "ingest.languages", '"en"', "valid tuple"),
        ({"inputs": [{"path": "a", "pool": "a/b"}]}, "inputs.0.pool", '"a/b"', "pattern"),
        ({"steps": ["ingest", "fly"]}, "steps.1", '"fly"', "'ingest'"),
        ({"steps": []}, "steps", "[]", "at least 1"),
        ({"lake": 7}, "lake", "7", "valid string"),
    ],
)
def test_recipe_wrong_value_names_key_value_and_what_is_right(change, key, value, said):
    message = errors_of(SMALLEST | change)
    assert f"{key}: got {value};" in message
    assert said in message


def test_recipe_long_wrong_value_is_cut_in_the_message():
    message = errors_of(SMALLEST | {"lake": ["x" * 500]})
    assert "..." in message
    assert len(message) < 300


def test_recipe_missing_key_is_named():
    assert "lake: missing; it has no default" in errors_of({"inputs": INPUTS})
    assert "inputs.0.pool: missing" in errors_of({"lake": "x", "inputs": [{"path": "a"}]})


def test_recipe_with_several_errors_lists_them_all_at_once():
    message = errors_of({"lakee": "x", "inputs": INPUTS, "select": {"size": "big"}})
    head, *lines = message.splitlines()
    assert head == "recipe r.yaml has 3 error(s):"
    assert len(lines) == 3
    for key in ("lake: missing", "lakee: unknown", 'select.size: got "big"'):
        assert sum(line.strip().startswith(key) for line in lines) == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"path": "a", "dataset": "b"}, "set either path"),
        ({}, "set either path"),
        ({"path": "a", "format": "alpaca", "fields": {"query": "q"}}, "both set"),
        ({"path": "a", "format": "fields"}, "needs the field map"),
        ({"path": "a", "fields": {"query": "q", "turns": "t"}}, "set either turns"),
        ({"path": "a", "fields": {"response": "r"}}, "set either turns"),
    ],
)
def test_recipe_input_that_contradicts_itself_is_refused(source, said):
    message = errors_of({"lake": "x", "inputs": [{"pool": "p", **source}]})
    assert "inputs.0" in message
    assert said in message


MATCH = {"strategy": "match_target"}
WANTED = {"path": "w.jsonl", "pool": "wanted", "target": True}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": [*INPUTS, {**WANTED, "pool": "code"}]}, "one of pool code is a target"),
        ({"select": MATCH}, "match_target needs a target: give an input target: true"),
        (
            {"select": MATCH, "inputs": [*INPUTS, WANTED], "embed": {"text": "conversation"}},
            "set embed.text to instruction or query",
        ),
        ({"select": {**MATCH, "by": []}}, "select.by: "),
    ],
)
def test_recipe_target_that_cannot_be_matched_is_refused(change, said):
    assert said in errors_of({**SMALLEST, **change})


def test_recipe_targets_are_no_pools_to_choose_from():
    inputs = [WANTED, *INPUTS]
    recipe = validate(Recipe, {**SMALLEST, "inputs": inputs, "select": MATCH}, "recipe")
    assert (recipe.pools, recipe.targets) == (["alpaca", "code"], ["wanted"])
    validate(Recipe, {**SMALLEST, "select": {**MATCH, "target": "elsewhere"}}, "recipe")


def test_recipe_ingest_without_inputs_is_refused():
    assert "inputs is empty" in errors_of({"lake": "x"})
    assert validate(Recipe, {"lake": "x", "steps": ["select"]}, "recipe").inputs == ()


@pytest.mark.parametrize("steps", [["tag", "ingest"], ["ingest", "tag", "tag"]])
def test_recipe_steps_out_of_order_are_refused(steps):
    message = errors_of(SMALLEST | {"steps": steps})
    assert "steps must follow this order, each once: ingest, tag, normalize" in message


def test_recipe_missing_file_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no such file") as caught:
        load_recipe("nowhere.yaml")
    assert str(tmp_path) in str(caught.value)
    assert "tagsieve init" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"), [("lake: [x", "not YAML"), ("- lake", "keys and values"), ("", "keys and")]
)
def test_recipe_that_is_no_mapping_is_refused(recipe_file, text, said):
    with pytest.raises(UsageError, match=said):
        load_recipe(recipe_file(text))


def test_recipe_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(str(tmp_path))
    (tmp_path / "latin.yaml").write_bytes(b"lake: caf\xe9")
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(str(tmp_path / "latin.yaml"))


def test_overrides_reach_lists_nested_keys_and_new_keys(recipe_file):
    recipe = load_recipe(
        recipe_file(yaml.safe_dump(SMALLEST)),
        [
            "inputs.1.pool=other",
            "select.size=12",
            "normalize.rule.stemmer=none",
            "ingest.languages=[en, zh]",
            "ingest.max_chars=null",
            "ingest.meta=false",
            "lake=s3://b/x=y",
        ],
    )
    assert [source.pool for source in recipe.inputs] == ["alpaca", "other"]
    assert recipe.select.size == 12
    assert recipe.normalize.rule.stemmer == "none"
    assert recipe.ingest.languages == ("en", "zh")
    assert recipe.ingest.max_chars is None
    assert recipe.ingest.meta is False
    assert recipe.lake == "s3://b/x=y"


def test_overrides_leave_the_given_values_alone():
    values = {"a": {"b": 1}, "c": None}
    assert apply_overrides(values, ["a.b=2", "c.d=x", "e="]) == {
        "a": {"b": 2},
        "c": {"d": "x"},
        "e": None,
    }
    assert values == {"a": {"b": 1}, "c": None}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("select.size", "expected key=value"),
        ("=3", "expected key=value"),
        ("a=[1", "not a YAML value"),
        ("inputs.7.pool=x", "'7' is no index of the list (0 to 1)"),
        ("inputs.last.pool=x", "'last' is no index"),
        ("empty.0=x", "the list is empty"),
        ("lake.name=x", "'name' lies below a plain value ('lakes/x')"),
    ],
)
def test_overrides_that_cannot_be_set_are_refused(override, said):
    with pytest.raises(UsageError) as caught:
        apply_overrides(SMALLEST | {"empty": []}, [override])
    assert repr(override) in str(caught.value)
    assert said in str(caught.value)


def test_overrides_of_a_wrong_key_are_checked_like_the_recipe(recipe_file):
    path = recipe_file(yaml.safe_dump(SMALLEST))
    with pytest.raises(UsageError, match=r"select\.sise: unknown key; did you mean 'size'"):
        load_recipe(path, ["select.sise=3"])


def test_recipe_model_without_close_key_lists_what_is_known():
    class Small(RecipeModel):
        alpha: int = 1

    with pytest.raises(UsageError, match="known here: alpha"):
        validate(Small, {"qqq": 1}, "part")


@pytest.mark.parametrize("module", ["tagsieve.config", "tagsieve.recipe"])
def test_import_of_recipes_loads_no_engine(module):
    heavy = ("pyspark", "ray", "torch", "deltalake", "pandas", "pyarrow", "transformers")
    code = f"import sys, {module}; print(*[m for m in {heavy!r} if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == ""
