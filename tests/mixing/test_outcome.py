"""A recipe that mixes: its plan, its ledger, its files and its report."""

import json

import pytest
import yaml
from click.testing import CliRunner

from handmade import rows_of
from mixed import mixture_of
from tagsieve.cli import main
from tagsieve.console import Console
from tagsieve.recipe import load_recipe
from tagsieve.runner import run_steps

STUDY = "{strategy: combinations, each: 7}"
TOKENS = "{each: 20, tokens_by: [words], over_ask: replace, name: tokens}"


@pytest.fixture
def recipe(tmp_path, lake):
    """A recipe over two pools of short conversations, a tool's among them."""
    for pool, count in (("a", 12), ("b", 9)):
        rows = [
            {"messages": [{"role": "user", "content": f"{pool} asks {n}"},
                          {"role": "tool" if n == 3 else "assistant", "content": f"word {n}"},
                          {"role": "assistant", "content": "and more"}]}
            for n in range(count)
        ]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{pool}.jsonl").write_text(text)
    values = {
        "lake": lake.root,
        "inputs": [{"path": str(tmp_path / f"{pool}.jsonl"), "pool": pool} for pool in "ab"],
        "steps": ["ingest", "score", "mix", "export", "report"],
        "score": {
            "scorers": [{"kind": "length", "name": "words", "of": "instruction"}
                        | {"tokenizer": "words"}]
        },
        "export": {"path": str(tmp_path / "out"), "formats": ["sharegpt", "alpaca"]},
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def exported(folder):
    lines = (folder / "sharegpt/00000.jsonl").read_text().splitlines()
    return [(row["pool"], row["id"]) for row in map(json.loads, lines)]


def test_run_writes_every_mixture_of_a_study_by_position(recipe, lake, engines, tmp_path):
    loaded = load_recipe(recipe, [f"mix={STUDY}"])
    run_steps(loaded, loaded.steps, Console(quiet=True), engines)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"mix-a", "mix-b", "mix-a-b", "report.html"}
    rows = 0
    for name in ("mix-a", "mix-b", "mix-a-b"):
        told = mixture_of(lake, name)
        assert exported(out / name) == [(pool, key) for _, pool, key, _ in told]
        assert (out / name / "dataset_info.json").exists()
        card = (out / name / "README.md").read_text()
        assert f"# {name}" in card
        assert "Mixed by tagsieve" in card
        assert "in the order of their position" in card
        rows += len(told)
    step = {row["step"]: row for row in rows_of(lake, "runs")}["export"]
    refused = step["rejected"].get("not_alpaca", 0)
    assert (step["input"], step["kept"]) == (2 * rows, 2 * rows - refused)
    listed = [(r["source"], r["source_row"]) for r in rows_of(lake, "rejects", step="export")]
    assert len(listed) == len(set(listed))
    assert bool(listed) == bool(refused)
    html = (out / "report.html").read_text()
    assert "<h2>Mixtures</h2>" in html
    assert "<td>mix-a-b</td><td>a</td><td>a</td>" in html
    assert "mixed" in html

    run_steps(loaded, loaded.steps, Console(quiet=True), engines)
    again = sorted(rows_of(lake, "runs"), key=lambda row: row["started"])[-5:]
    assert all(row["known"] == row["input"] for row in again)


def test_run_writes_copies_of_a_mixture_in_tokens(recipe, lake, engines, tmp_path):
    loaded = load_recipe(recipe, [f"mix={TOKENS}", "mix.each=100", "export.formats=[sharegpt]"])
    run_steps(loaded, loaded.steps, Console(quiet=True), engines)
    told = mixture_of(lake, "tokens")
    # Of three words each, 33 rows fit into 100; there are 12 and 9.
    assert len(told) == 66
    assert {copy for part, _, _, copy in told if part == "b"} == {0, 1, 2, 3}
    assert exported(tmp_path / "out") == [(pool, key) for _, pool, key, _ in told]
    html = (tmp_path / "out/report.html").read_text()
    assert '<td>b</td><td>b</td><td class="n">33</td><td class="n">24</td>' in html


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        (STUDY, "combinations of a, b: 3 mixtures, mix-a to mix-a-b"),
        ("{each: 5}", "equal of a, b: mix"),
    ],
)
def test_plan_tells_the_mixtures_and_runs_nothing(recipe, lake, mix, said):
    done = CliRunner().invoke(main, ["mix", recipe, f"mix={mix}", "--dry-run"])
    assert done.exit_code == 0
    assert said in " ".join(done.stdout.split())
    assert not lake.tables()


def test_mix_without_its_section_exits_2_before_anything_is_written(recipe, lake):
    for command in (["mix", recipe], ["run", recipe, "steps=[mix]"]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 2
        assert "mix: missing; it has no default. Set at least mix.each" in done.stderr
        assert not lake.tables()
