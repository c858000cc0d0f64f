"""Sharded trainings (FSDP) give what one worker with the whole model gives."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

WORKER = Path(__file__).parent / "sharded_worker.py"
STEPS, EVERY = 4, 2
pytestmark = pytest.mark.slow


@pytest.fixture
def rows(tmp_path):
    """Token ids of every length, some of preference pairs."""
    ids = [[5 + (n + k) % 40 for k in range(6 + n % 9)] for n in range(32)]
    columns = {
        "sft": {"input_ids": ids, "labels": [[-100] * 3 + row[3:] for row in ids]},
        "dpo": {"prompt_ids": [row[:3] for row in ids], "chosen_ids": [row[3:] for row in ids],
                "rejected_ids": [row[3:][::-1] for row in ids]},
    }  # fmt: skip
    for task, of_task in columns.items():
        (tmp_path / task / "train").mkdir(parents=True)
        pq.write_table(pa.table(of_task), tmp_path / task / "train" / "0.parquet")
    return lambda task: str(tmp_path / task)


@pytest.fixture
def alone(rows, train_alone):
    """Step -> loss of one worker that has the whole model."""

    def train(config):
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        return train_alone(config, tokenizer, rows(config.task))

    return train


@pytest.fixture
def sharded(rows, tmp_path):
    """Step -> loss of two workers, each with a part of the model."""

    def train(config, checkpoint=None):
        settings = {
            "config": config.model_dump(), "rows": rows(config.task),
            "folder": str(tmp_path / "sharded"), "checkpoint": checkpoint,
        }  # fmt: skip
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                   "--nproc-per-node", "2", str(WORKER), json.dumps(settings)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        told = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert told, done.stdout[-2000:] + done.stderr[-4000:]
        found = json.loads(told[0].removeprefix("RESULT "))
        assert found["sharded"]
        # Not where there is a second model, whose weights would not be handed on.
        assert found["once"] == (config.task != "dpo")
        return {int(step): loss for step, loss in found["losses"].items()}

    return train


def test_fine_tuning_and_going_on_from_a_checkpoint(make_config, alone, sharded, tmp_path):
    config = make_config(
        workers=2, parallel="fsdp", steps=STEPS, micro_batch_size=2, checkpoint_steps=EVERY,
        log_steps=1, shuffle=False,
    )  # fmt: skip
    undisturbed = alone(config)
    assert sharded(config) == pytest.approx(undisturbed, abs=1e-3)
    checkpoints = tmp_path / "sharded" / "checkpoints"
    # Whole models, which anything reads.
    AutoModelForCausalLM.from_pretrained(checkpoints / f"checkpoint-{STEPS}")
    again = sharded(config, str(checkpoints / f"checkpoint-{EVERY}"))
    assert again == pytest.approx(undisturbed, abs=1e-3)


@pytest.mark.soak
def test_an_adapter(make_config, alone, sharded):
    config = make_config(
        workers=2, parallel="fsdp", steps=STEPS, micro_batch_size=2, log_steps=1, shuffle=False,
        lora={"rank": 4, "dropout": 0.0},
    )  # fmt: skip
    assert sharded(config) == pytest.approx(alone(config), abs=1e-3)


def test_preferences_against_the_base_model(make_config, alone, sharded):
    config = make_config(
        "dpo", workers=2, parallel="fsdp", steps=STEPS, micro_batch_size=2, log_steps=1,
        shuffle=False,
    )  # fmt: skip
    losses = alone(config)
    assert losses[1] == pytest.approx(0.693, abs=0.01)
    assert losses[STEPS] < losses[1]
    assert sharded(config) == pytest.approx(losses, abs=2e-3)
