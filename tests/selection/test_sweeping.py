"""Several selections from one section: what it stands for, and that nothing is found twice."""

import re

import numpy as np
import pytest

from handmade import put, rows_of, sample
from tagsieve.console import Console
from tagsieve.embedding import encoder_fingerprint
from tagsieve.engines.context import Context
from tagsieve.errors import UsageError
from tagsieve.recipe import Recipe, load_recipe
from tagsieve.runner import run_steps
from tagsieve.selection import step
from tagsieve.selection.sweeping import beginnings, expanded


def names(section):
    return [values["name"] for values in expanded(section)]


def test_lists_make_a_selection_for_each_combination():
    section = {"name": "x", "strategy": ["random", "top_score"], "size": [10, 20], "seed": 1,
               "lowest": True, "without": ["a", "b"]}  # fmt: skip
    found = expanded(section)
    assert [values["name"] for values in found] == [
        "x-random-10", "x-random-20", "x-top_score-10", "x-top_score-20",
    ]  # fmt: skip
    assert found[0] == {"name": "x-random-10", "strategy": "random", "size": 10, "seed": 1,
                        "without": ["a", "b"]}  # fmt: skip
    assert found[3]["lowest"] is True
    assert expanded({"size": 5}) == [{"size": 5}]
    assert names([{"name": "a"}, {"name": "b", "coverage": [0.1, 0.25]}]) == [
        "a", "b-0.1", "b-0.25",
    ]  # fmt: skip
    assert names({"name": "x", "score": ["a * b", "c"]}) == ["x-a-b", "x-c"]


def test_repetitions_use_the_pool_up():
    found = expanded({"name": "c", "size": 6, "repeat": 3, "deplete": True, "without": ["z"]})
    assert [(values["name"], values["without"]) for values in found] == [
        ("c-1", ["z"]), ("c-2", ["z", "c-1"]), ("c-3", ["z", "c-1", "c-2"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ([], "select: the list is empty"),
        ([{"size": 1}, {"size": 2}], "two selections are named selection"),
        ({"repeat": 0}, "select.repeat=0: expected how often"),
        ({"deplete": 1}, "select.deplete=1: expected true or false"),
    ],
)
def test_sections_that_cannot_be_expanded_are_refused(section, told):
    with pytest.raises(UsageError, match=re.escape(told)):
        expanded(section)


def test_recipes_hold_all_selections_and_say_what_is_wrong_in_one(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("lake: x\nsteps: [select]\nselect: {name: s, size: [5, -1]}\n")
    with pytest.raises(UsageError, match=r"sweep\.0\.size: got -1"):
        load_recipe(str(path))
    recipe = load_recipe(str(path), ["select.size=[5, 7]"])
    assert [config.name for config in recipe.selections] == ["s-5", "s-7"]
    assert beginnings(recipe.selections) == {"s-5": "s-7"}
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_sizes_are_found_once_and_each_is_the_beginning_of_the_largest(
    lake, engines, tmp_path, monkeypatch
):
    keys = [f"s{n}" for n in range(30)]
    put(lake, "samples", [sample("p", key, row=n) for n, key in enumerate(keys)])
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"lake: {lake.root}\nsteps: [select, export]\nexport: {{path: {tmp_path}/out}}\n"
        "select: {name: r, strategy: random, size: [3, 40, 12]}\n"
    )
    found = []
    plain = step._outcome
    monkeypatch.setattr(step, "_outcome", lambda *given: found.append(1) or plain(*given))
    recipe = load_recipe(str(path))
    run_steps(recipe, recipe.steps, Console(quiet=True), engines)
    assert len(found) == 1
    ids = {}
    for row in rows_of(lake, "selections"):
        ids.setdefault(row["selection"], {})[row["rank"]] = row["sample_id"]
    assert {name: len(rows) for name, rows in ids.items()} == {"r-3": 3, "r-12": 12, "r-40": 30}
    for rows in ids.values():
        assert all(ids["r-40"][rank] == key for rank, key in rows.items())
    ledger = {row["step"]: row for row in rows_of(lake, "runs")}
    assert ledger["select r-12"]["rejected"] == {"not_selected": 18}
    assert ledger["select r-40"]["metrics"]["shortfall"] == 10
    for name, rows in ids.items():
        files = list((tmp_path / "out" / name).rglob("*.jsonl"))
        assert sum(len(file.read_text().splitlines()) for file in files) == len(rows)
    run_steps(recipe, recipe.steps, Console(quiet=True), engines)
    assert len(found) == 1


def test_candidates_and_vectors_that_are_the_same_are_made_once(
    lake, engines, tmp_path, monkeypatch
):
    keys = [f"s{n:02}" for n in range(40)]
    put(lake, "samples", [sample("p", key, row=n) for n, key in enumerate(keys)])
    recipe = load_recipe(str(write(tmp_path, lake, "[kcenter, random]", "[0, 1]")))
    encoder = encoder_fingerprint(recipe.embed)
    vectors = np.random.default_rng(1).normal(size=(len(keys), 4))
    put(lake, "embeddings", [{"sample_id": key, "encoder": encoder, "vector": vector.tolist()}
                             for key, vector in zip(keys, vectors, strict=True)])  # fmt: skip
    asked = []
    there = Context.has_stored

    def spied(self, name):
        found = there(self, name)
        asked.append((name.split("-")[0], found))
        return found

    monkeypatch.setattr(Context, "has_stored", spied)
    run_steps(recipe, recipe.steps, Console(quiet=True), engines)
    assert sorted(asked) == sorted(
        [("samples", False)] * 2 + [("samples", True)] * 2 + [("vectors", False), ("vectors", True)]
    )
    together = chosen_by_name(lake)
    assert len(set(map(tuple, together.values()))) == 4
    for strategy in ("kcenter", "random"):
        for seed in (0, 1):
            alone = load_recipe(str(write(tmp_path, lake, strategy, seed)))
            run_steps(alone, alone.steps, Console(quiet=True), engines)
            assert chosen_by_name(lake)["s"] == together[f"s-{strategy}-{seed}"]


def write(folder, lake, strategy, seed):
    path = folder / "recipe.yaml"
    select = f"{{name: s, strategy: {strategy}, seed: {seed}, size: 9}}"
    path.write_text(f"lake: {lake.root}\nsteps: [select]\nselect: {select}\n")
    return path


def chosen_by_name(lake):
    found = {}
    for row in sorted(rows_of(lake, "selections"), key=lambda row: row["rank"]):
        found.setdefault(row["selection"], []).append(row["sample_id"])
    return found
