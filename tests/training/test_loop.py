"""What a worker trains on, without Ray: masks, packing, adapters, arguments."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer
from transformers.trainer_callback import TrainerState

from tagsieve.training.loop import Job, _arguments, _ended, _trainer
from tagsieve.training.step import _run_name

ROWS = [([5, 6, 7, 8], 2), ([9, 10, 11], 1), ([12, 13, 14, 15, 16, 17], 3), ([20, 21], 1)]
"""Token ids, and how many of them are not trained on."""


class Mute:
    """A board that nobody reads."""


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "rows" / "train"
    folder.mkdir(parents=True)
    for number, some in enumerate((ROWS[:2], ROWS[2:])):
        columns = {
            "input_ids": [ids for ids, _ in some],
            "labels": [[-100] * masked + ids[masked:] for ids, masked in some],
        }
        pq.write_table(pa.table(columns), folder / f"part-{number}.parquet")

    def make(config, dtype="float32", gpu=False):
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        rows = str(tmp_path / "rows")
        return Job(config, config.model, None, tokenizer, rows, False, Mute(), None, dtype, gpu, 1)

    return make


def loss_of(trainer, batch):
    with torch.no_grad():
        return trainer.compute_loss(trainer.model.eval(), dict(batch)).item()


def reference(model):
    """The mean loss of the labels of all rows, one row at a time, by hand."""
    total, count = 0.0, 0
    for ids, masked in ROWS:
        with torch.no_grad():
            odds = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for place in range(max(masked, 1), len(ids)):
            total -= odds[place - 1, ids[place]].item()
            count += 1
    return total / count


def test_rows_are_trained_on_as_they_are(job, make_config, tmp_path):
    config = make_config(shuffle=False, micro_batch_size=4)
    trainer = _trainer(job(config), str(tmp_path / "out"))
    (batch,) = trainer.get_train_dataloader()
    assert [row[: len(ids)] for row, (ids, _) in zip(batch["input_ids"].tolist(), ROWS, strict=True)
            ] == [ids for ids, _ in ROWS]  # fmt: skip
    assert batch["labels"].tolist() == [
        [-100, -100, 7, 8, -100, -100],
        [-100, 10, 11, -100, -100, -100],
        [-100, -100, -100, 15, 16, 17],
        [-100, 21, -100, -100, -100, -100],
    ]
    assert loss_of(trainer, batch) == pytest.approx(reference(trainer.model), abs=1e-5)
    assert trainer.args.gradient_accumulation_steps == 2


def test_packed_rows_do_not_see_each_other(job, make_config, tmp_path):
    config = make_config(packing=True, max_tokens=16, micro_batch_size=1)
    trainer = _trainer(job(config), str(tmp_path / "out"))
    (batch,) = trainer.get_train_dataloader()
    assert batch["input_ids"].shape == (1, 15)
    assert sorted(batch["position_ids"][0].tolist()) == [
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        1,
        2,
        2,
        2,
        3,
        3,
        4,
        5,
    ]
    assert loss_of(trainer, batch) == pytest.approx(reference(trainer.model), abs=1e-5)


def test_an_adapter_leaves_the_model_as_it_is(job, make_config, tmp_path):
    config = make_config(lora={"rank": 4, "modules": ["q_proj"]}, neftune=0.1)
    trainer = _trainer(job(config, "bfloat16"), str(tmp_path / "out"))
    names = [name for name, value in trainer.model.named_parameters() if value.requires_grad]
    assert names
    assert all("q_proj.lora_" in name for name in names)
    frozen = [value for value in trainer.model.parameters() if not value.requires_grad]
    assert {value.dtype for value in frozen} == {torch.bfloat16}
    assert trainer.args.neftune_noise_alpha == 0.1


def test_a_training_that_had_ended_does_no_step_more(tmp_path):
    assert _ended(None) is None
    for step, ended in ((29, False), (30, True)):
        TrainerState(global_step=step, max_steps=30, log_history=[{"step": step}]).save_to_json(
            str(tmp_path / "trainer_state.json")
        )
        state = _ended(str(tmp_path))
        assert (state is not None) == ended
    assert (state.global_step, state.log_history) == (30, [{"step": 30}])


def test_settings_reach_the_trainer(job, make_config, tmp_path):
    config = make_config(
        schedule="cosine", weight_decay=0.1, steps=7, seed=3, gradient_checkpointing=True,
        parallel="fsdp", parallel_args={"cpu_offload": True}, batch_size=24, micro_batch_size=2,
        workers=3,
    )  # fmt: skip
    given = _arguments(job(config, gpu=True), str(tmp_path))
    assert given["fsdp_config"] == {"cpu_offload": True, "cpu_ram_efficient_loading": True}
    assert given["gradient_accumulation_steps"] == 4
    assert given["model_init_kwargs"]["dtype"] == "float32"
    assert (given["max_steps"], given["seed"], given["weight_decay"]) == (7, 3, 0.1)
    assert given["model_init_kwargs"]["device_map"] is None
    own = {"offload_optimizer": {"device": "cpu"}}
    deep = make_config(parallel="deepspeed", parallel_args={"zero_optimization": own})
    arguments = _arguments(job(deep, gpu=True), "")["deepspeed"]
    assert arguments["zero_optimization"] == {
        "stage": 3, "stage3_gather_16bit_weights_on_model_save": True, **own
    }  # fmt: skip
    assert arguments["train_batch_size"] == "auto"
    # On CPUs there is nothing to shard.
    assert {"fsdp", "deepspeed"}.isdisjoint(_arguments(job(deep), ""))


def test_only_trainings_of_one_kind_go_on_from_each_others_checkpoints(job, make_config):
    names = [
        _run_name(job(make_config(parallel=parallel, workers=workers), gpu=True), "m")
        for parallel, workers in (("ddp", 1), ("ddp", 2), ("fsdp", 1), ("fsdp", 2),
                                  ("deepspeed", 1), ("deepspeed", 2))
    ]  # fmt: skip
    assert names == ["m", "m", "m-fsdp", "m-fsdp", "m-deepspeed-1", "m-deepspeed-2"]
    assert _run_name(job(make_config(parallel="fsdp")), "m") == "m"
