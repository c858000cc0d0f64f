"""The recipes of the papers as they are shipped, with the sample pool and a tiny model."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from parity import selecting
from parity.losses import Reference
from tagsieve.console import Console
from tagsieve.recipe import load_recipe
from tagsieve.runner import run_steps

ROOT = Path(__file__).resolve().parents[2]
POOL = ROOT / "conf/sample_pool"
INPUTS = [
    {"path": str(POOL / "code.jsonl"), "pool": "code"},
    {"path": str(POOL / "chat.jsonl"), "pool": "chat"},
]
SIZE = 30
pytestmark = pytest.mark.slow


@pytest.fixture
def run_recipe(engines, lake, tmp_path):
    """Run a recipe of `conf/recipes`; gives the folder of its export."""

    def run(name, *overrides):
        out = tmp_path / "out"
        settings = [f"lake={lake.root}", f"inputs={INPUTS}", f"export.path={out}", *overrides]
        recipe = load_recipe(str(ROOT / "conf/recipes" / name), settings)
        run_steps(recipe, recipe.steps, Console(quiet=True), engines)
        return out

    return run


def test_deita_takes_what_the_papers_rule_takes(run_recipe, lake, tiny_llama):
    """Scored turn by turn, summed, and filtered by the states of whole conversations."""
    shipped = load_recipe(str(ROOT / "conf/recipes/deita.yaml"))
    assert (shipped.select.tau, shipped.select.size) == (0.9, 6000)
    scorers = [
        {"kind": "deita", "name": what, "what": what, "model": tiny_llama, "dtype": "float32"}
        for what in ("complexity", "quality")
    ]
    run_recipe(
        "deita.yaml",
        f"embed.model={tiny_llama}",
        "embed.dtype=float32",
        f"score.scorers={scorers}",
        f"select.size={SIZE}",
        "select.explain=true",
    )
    reference = Reference(tiny_llama)
    samples = lake.arrow("samples").to_pylist()
    vectors = {row["sample_id"]: row["vector"] for row in lake.arrow("embeddings").to_pylist()}
    rows = []
    for row in samples:
        turns = row["turns"]
        pairs = [
            (turn["content"], reply["content"])
            for turn, reply in pairwise(turns)
            if turn["role"] == "user"
        ]
        score = sum(
            reference.deita("complexity", *pair) * reference.deita("quality", *pair)
            for pair in pairs
        )
        named = {name: row[name] for name in ("pool", "sample_id")}
        rows.append(named | {"score": score, "vector": vectors[row["sample_id"]]})
    expected, _ = selecting.filtered(rows, 0.9, SIZE)
    assert 5 < len(expected) < len(rows) - 5
    found = sorted(lake.arrow("selections").to_pylist(), key=lambda row: row["rank"])
    assert [(row["pool"], row["sample_id"]) for row in found] == expected


@pytest.mark.soak
def test_target_takes_rows_of_the_pools_for_queries_without_answers(run_recipe, lake, tmp_path):
    asked = ["How do I sort a list in Python?", "Write a short poem about the sea."]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f"{json.dumps({'prompt': text})}\n" for text in asked))
    wanted = {"path": str(prompts), "pool": "production", "target": True,
              "fields": {"query": "prompt"}}  # fmt: skip
    run_recipe(
        "target.yaml",
        f"inputs={[*INPUTS, wanted]}",
        "normalize.min_count=3",
        f"select.size={SIZE}",
        "select.neighbours=50",
    )
    taken = sorted(lake.arrow("selections").to_pylist(), key=lambda row: row["rank"])
    assert len(taken) == SIZE
    assert {row["pool"] for row in taken} == {"chat", "code"}
    samples = lake.arrow("samples").to_pylist()
    ids = {row["sample_id"] for row in samples if row["pool"] == "production"}
    assert len(ids) == 2
    near = [row for row in taken if row["reason"].startswith("neighbour")]
    assert {row["nearest"] for row in near} == ids
    run = next(row for row in lake.arrow("runs").to_pylist() if row["step"] == "select")
    assert dict(run["rejected"])["target"] == 2
    metrics = dict(run["metrics"])
    assert metrics["target_tags_covered"] == metrics["target_tags_there"] > 0
