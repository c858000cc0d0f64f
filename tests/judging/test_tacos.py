"""TACOS as its recipe ships it, on real Alpaca rows with the embedded tagger and a stub judge."""

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from parity.comparative import chosen, scores_of
from stub_judge import judge_of
from tagsieve.console import Console
from tagsieve.lake import Lake
from tagsieve.recipe import load_recipe
from tagsieve.runner import run_steps

ROOT = Path(__file__).resolve().parents[2]
SIZE = 100
EVERY = 60

pytestmark = pytest.mark.slow


@pytest.fixture
def run(engines, tmp_path, shared_data, endpoint):
    """Run steps of the recipe over every so many-th row of Alpaca; gives the lake's tables."""
    with gzip.open(shared_data / "pools" / "alpaca.jsonl.gz", "rt") as lines:
        rows = lines.read().splitlines()[::EVERY]
    (tmp_path / "alpaca.jsonl").write_text("\n".join(rows))
    endpoint.reply = judge_of(7)

    def run(name, *overrides, steps=None):
        settings = [
            f"lake={tmp_path / name}",
            f"inputs.0.path={tmp_path / 'alpaca.jsonl'}",
            "normalize.min_count=5",
            "normalize.association.min_support=5",
            "cluster.clusters=30",
            f"judge.engine.base_url={endpoint.url}",
            f"select.size={SIZE}",
            f"export.path={tmp_path / 'out'}",
            *overrides,
        ]
        recipe = load_recipe(str(ROOT / "conf/recipes/tacos.yaml"), settings)
        run_steps(recipe, steps or recipe.steps, Console(quiet=True), engines)
        return Lake(recipe.lake)

    return run


def selected(lake):
    rows = sorted(lake.arrow("selections").to_pylist(), key=lambda row: row["rank"])
    return [row["sample_id"] for row in rows]


def test_the_recipe_judges_all_in_both_orders_and_fills_its_budget(run, endpoint, tmp_path):
    lake = run("lake")
    clusters = {row["sample_id"]: row["cluster"] for row in lake.arrow("clusters").to_pylist()}
    sizes = Counter(clusters.values())
    rows = lake.arrow("judgements").to_pylist()
    judged = {
        tuple(item["id"] for item in row["items"]): [item["score"] for item in row["items"]]
        for row in rows
    }
    assert len(judged) == len(rows)
    assert all((b, a) in judged and clusters[a] == clusters[b] for a, b in judged)
    paired = {key for pair in judged for key in pair}
    assert paired == {key for key, cluster in clusters.items() if sizes[cluster] > 1}
    pairs = {tuple(sorted(pair)) for pair in judged}
    assert selected(lake) == chosen(clusters, scores_of(pairs, judged), SIZE)
    assert len(set(selected(lake))) == SIZE
    taken = Counter(clusters[key] for key in selected(lake))
    assert max(taken.values()) - min(taken[c] for c in sizes if sizes[c] > taken[c]) <= 1
    labels = lake.arrow("cluster_labels").to_pylist()
    assert {row["cluster"]: row["samples"] for row in labels if row["samples"]} == sizes

    # More rounds later only add their pairs.
    calls = sum(endpoint.calls.values())
    more = run("lake", "judge.rounds=2", steps=["judge", "select"])
    pairs = {tuple(row[end] for end in "ab") for row in more.arrow("pairs").to_pylist()}
    assert more.arrow("judgements").num_rows == 2 * len(pairs)
    assert sum(endpoint.calls.values()) - calls == 2 * len(pairs) - len(judged)
    assert json.loads((tmp_path / "out" / "dataset_info.json").read_text())


@pytest.mark.soak
def test_the_same_ids_at_another_parallelism(run, engines, tmp_path):
    run("lake", steps=["ingest", "tag", "normalize", "analyze"])
    shutil.copytree(tmp_path / "lake", tmp_path / "same")
    lake = run("lake", steps=["cluster", "judge", "select"])
    spark, setting = engines.spark, "spark.sql.shuffle.partitions"
    before = spark.conf.get(setting)
    try:
        spark.conf.set(setting, "7")
        overrides = ["judge.engine.concurrency=3", "normalize.semantic.replicas=2"]
        other = run("same", *overrides, steps=["cluster", "judge", "select"])
    finally:
        spark.conf.set(setting, before)
    assert selected(other) == selected(lake)
