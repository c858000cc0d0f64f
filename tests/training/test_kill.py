"""kill -9 of a worker and then of the driver: the training goes on from its newest checkpoint and
ends as one that nobody disturbed."""

import json

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from handmade import rows_of
from programs import SMALL, finish, kill, start, wait_for
from tagsieve.lake import Lake
from tagsieve.training import sources
from tagsieve.training.base import load_base
from tagsieve.training.encoding import encode

STEPS = 30
EVERY = 5


def losses(folder):
    """Step -> loss; each step once."""
    history = json.loads((folder / "history.json").read_text())
    pairs = [(row["step"], row["value"]) for row in history if row["name"] == "loss"]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.fixture
def alone(make_context, tmp_path, train_alone):
    """Step -> loss of the same training in this process, without Ray."""

    def train(config):
        context = make_context("train")
        context.run.reads("selections", "samples")
        tokenizer = load_base(config).tokenizer
        rows = sources.conversations("toys", mixed=False).rows(context)
        encoded = encode(rows, sources.encoding_of(config, tokenizer)).orderBy("place").toArrow()
        (tmp_path / "rows" / "train").mkdir(parents=True)
        pq.write_table(encoded, tmp_path / "rows" / "train" / "0.parquet")
        return train_alone(config, tokenizer, str(tmp_path / "rows"))

    return train


@pytest.mark.slow
def test_killed_worker_and_killed_driver(lake, add_selection, make_config, alone, tmp_path):
    add_selection(64)
    config = make_config(
        workers=2, steps=STEPS, batch_size=32, checkpoint_steps=EVERY, log_steps=1,
        path=str(tmp_path / "killed"), selection="toys",
    )  # fmt: skip
    recipe = tmp_path / "recipe.yaml"
    settings = {"lake": lake.root, "steps": ["train"], "train": config.model_dump()} | SMALL
    recipe.write_text(yaml.safe_dump(json.loads(json.dumps(settings))))
    folder = tmp_path / "killed" / "mine"

    def reached():
        """The step of the newest checkpoint that Ray Train knows of."""
        snapshots = folder.glob("checkpoints/*/checkpoint_manager_snapshot.json")
        (told,) = [json.loads(path.read_text()) for path in snapshots] or [{}]
        newest = told.get("latest_checkpoint_result")
        return newest["metrics"]["step"] if newest else 0

    process = start("train", str(recipe))
    wait_for(reached, process)
    lost = reached()
    below = psutil.Process(process.pid).children(recursive=True)
    worker = next(each for each in below if "RayTrainWorker" in "".join(each.cmdline()))
    worker.kill()
    wait_for(lambda: reached() > lost, process)
    kill(process)
    assert reached() < STEPS
    assert not (folder / "README.md").exists()
    printed = finish(start("train", str(recipe)))
    assert "64 rows = 64 kept" in printed
    (row,) = rows_of(Lake(lake.root), "models")
    assert row["steps"] == STEPS
    assert lost < row["metrics"]["resumed_at"] < STEPS
    # As if nothing had been.
    undisturbed = alone(config)
    assert set(undisturbed) == set(range(1, STEPS + 1))
    assert losses(folder) == pytest.approx(undisturbed, abs=1e-3)
