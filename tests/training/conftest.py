"""Trainings of a tiny model on toy rows."""

from types import SimpleNamespace

import pytest
import ray.train
from pydantic import TypeAdapter

from handmade import put, sample
from tagsieve.training import TrainConfig, train
from tagsieve.training.loop import Job, _trainer
from tiny_llama import make_tiny_llama
from toys import WORDS, turns_of

_ADAPTER = TypeAdapter(TrainConfig)


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory):
    """A model that learns toy rows in seconds, whose tokenizer knows their words."""
    texts = ["say " + " ".join(WORDS), "\n\n### Response:", *WORDS, "1 2 3 4 5 6"]
    folder = tmp_path_factory.mktemp("small-llama")
    return str(make_tiny_llama(folder, hidden=64, context=512, texts=texts * 3))


@pytest.fixture
def add_selection(lake):
    """Puts toy conversations into the lake, chosen in reverse order."""

    def add(count, name="toys", extra=()):
        rows = [sample("p", f"{n:032x}", (f"q{n}",), turns_of(n), row=n) for n in range(count)]
        rows += [sample("p", key, ("q",), turns, meta) for key, turns, meta in extra]
        put(lake, "samples", rows)
        chosen = [
            {"selection": name, "pool": "p", "sample_id": row["sample_id"], "rank": rank,
             "run_id": "by hand"}
            for rank, row in enumerate(reversed(rows))
        ]  # fmt: skip
        put(lake, "selections", chosen)

    return add


@pytest.fixture
def make_config(small_llama, tmp_path):
    def make(task="sft", **settings):
        given = {
            "task": task, "model": small_llama, "name": "mine", "path": str(tmp_path / "models"),
            "batch_size": 8, "max_tokens": 256, "learning_rate": 1e-2, "warmup": 0.1,
            "checkpoint_steps": 20, "log_steps": 5,
        }  # fmt: skip
        if task in ("sft", "dpo"):
            given["template"] = "wizardlm"
        return _ADAPTER.validate_python(given | settings)

    return make


@pytest.fixture
def train_alone(tmp_path, monkeypatch):
    """Trains on the token ids in a folder by one worker that has the whole model, in this process
    and without Ray; gives step -> loss."""
    monkeypatch.setattr(ray.train, "report", lambda *args, **kwargs: None)

    def train_it(config, tokenizer, rows):
        one = config.model_copy(
            update={"workers": 1, "parallel": "ddp", "checkpoint_steps": config.steps}
        )
        board = SimpleNamespace(tell=SimpleNamespace(remote=lambda told: None))
        job = Job(one, config.model, None, tokenizer, rows, False, board, None, "float32", False, 1)
        trainer = _trainer(job, str(tmp_path / "alone"))
        trainer.train()
        return {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}

    return train_it


@pytest.fixture
def run(make_context):
    """Runs the step as one run; gives its line of the ledger."""

    def run_it(config, source, limit=None):
        context = make_context("train", limit)
        train(context, config, source, "{}")
        context.run.check()
        return context.run

    return run_it
