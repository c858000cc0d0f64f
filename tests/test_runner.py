"""What the runner does around the steps."""

import json

import pytest

from handmade import rows_of
from tagsieve.console import Console
from tagsieve.lake import Lake
from tagsieve.recipe import Recipe
from tagsieve.runner import run_steps

PLAIN = {"spark.hadoop.fs.s3a.path.style.access": "true"}
SECRETS = {
    "spark.hadoop.fs.s3a.access.key": "hidden-1",
    "spark.hadoop.fs.s3a.secret.key": "hidden-2",
    "spark.hadoop.fs.s3a.session.token": "hidden-3",
    "spark.ssl.keyPassword": "hidden-4",
}


@pytest.fixture
def run(tmp_path, engines):
    """Run steps of a recipe over two rows; gives the lake."""

    def run(**values):
        rows = [{"instruction": f"ask {i}", "input": "", "output": "say"} for i in range(2)]
        (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        least = {
            "lake": str(tmp_path / "lake"),
            "inputs": [{"path": str(tmp_path / "two.jsonl"), "pool": "p"}],
            "export": {"path": str(tmp_path / "out")},
        }
        recipe = Recipe.model_validate(least | values)
        run_steps(recipe, recipe.steps, Console(quiet=True), engines)
        return Lake(recipe.lake)

    return run


def test_secrets_of_spark_are_in_no_table_and_on_no_card(run, tmp_path, tiny_llama, monkeypatch):
    cards = []
    monkeypatch.setattr("tagsieve.training.train", lambda *given: cards.append(given[-1]))
    lake = run(
        steps=["ingest", "select", "export", "train"],
        select={"strategy": "full", "name": "all"},
        train={"task": "sft", "selection": "all", "model": str(tiny_llama)},
        spark={"conf": PLAIN | SECRETS},
    )
    told = [row["recipe"] for row in rows_of(lake, "runs")]
    assert len(told) == 4
    for recipe in [*told, *cards]:
        assert json.loads(recipe)["spark"]["conf"] == PLAIN | dict.fromkeys(SECRETS, "***")
    card = (tmp_path / "out" / "README.md").read_text()
    assert '"spark.hadoop.fs.s3a.secret.key": "***"' in card
    assert "hidden" not in card
