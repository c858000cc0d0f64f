"""What is refused of a base model and a recipe before anything starts."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tagsieve.config import validate
from tagsieve.engines.config import RayConfig
from tagsieve.engines.encoders import packaged_minilm
from tagsieve.errors import UsageError
from tagsieve.recipe import Recipe
from tagsieve.training import check_train
from tagsieve.training.base import load_base


def config_of(model, task="sft", **settings):
    recipe: dict = {
        "lake": "lake",
        "steps": ["train"],
        "train": {"task": task, "model": str(model), "batch_size": 8},
    }
    recipe["train"] |= settings
    if task == "scorer":
        recipe["train"].setdefault("examples", "e.parquet")
    if task == "dpo":
        recipe["train"].setdefault("pairs", "p.parquet")
    return validate(Recipe, recipe, "recipe").train


@pytest.fixture
def copied(tiny_llama, tmp_path):
    """A base model to spoil."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def refused(config, *words):
    with pytest.raises(UsageError) as told:
        check_train(config, RayConfig())
    for word in words:
        assert word in str(told.value), str(told.value)


def test_a_good_model_has_the_template_of_the_training(tiny_llama):
    assert "ASSISTANT:" in load_base(config_of(tiny_llama)).tokenizer.chat_template
    own = AutoTokenizer.from_pretrained(tiny_llama).chat_template
    assert load_base(config_of(tiny_llama, template="chat")).tokenizer.chat_template == own
    assert load_base(config_of(tiny_llama, "scorer")).tokenizer.chat_template == own


def test_a_base_model_without_a_chat_template(copied):
    (copied / "chat_template.jinja").unlink()
    refused(config_of(copied, template="chat"), "train.template=chat", "no chat template", "vicuna")
    refused(config_of(copied, "dpo", template="chat"), "no chat template")
    refused(config_of(copied, "instagger", prompt="open_tags"), "train.prompt=instagger_paper")
    check_train(config_of(copied), RayConfig())


def test_a_chat_template_that_forgets(copied):
    forgetful = "{% for m in messages[-1:] %}{{ m.role + m.content }}{% endfor %}"
    (copied / "chat_template.jinja").write_text(forgetful)
    refused(config_of(copied, template="chat"), "writes earlier turns anew")


def test_a_model_of_another_kind():
    refused(config_of(packaged_minilm(), max_tokens=64), "type bert", "no causal language model")


def test_weights_of_another_architecture(copied, tiny_llama):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    refused(config_of(copied), "its weights are of another architecture", "config.json asks for")
    other = {"model_type": "gpt2", "n_embd": 128, "n_layer": 2, "n_head": 2, "vocab_size": 391,
             "n_positions": 4096}  # fmt: skip
    (copied / "config.json").write_text(json.dumps(other))
    refused(config_of(copied), "its weights are of another architecture", "of a gpt2")


def test_an_adapter_and_nothing(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(config_of(tmp_path), "is an adapter", "train.lora.merge")
    refused(config_of(tmp_path / "not-there"), "no such folder")


def test_a_context_that_is_too_short(tiny_llama):
    refused(config_of(tiny_llama, max_tokens=8192), "train.max_tokens=8192", "is 4096 tokens")


def test_tokenizers_that_lack_a_sign(copied):
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    refused(config_of(copied), "no end sign (eos_token)")


def test_a_scorer_needs_its_digits(copied):
    whole = json.loads((copied / "tokenizer.json").read_text())
    vocabulary = whole["model"]["vocab"]
    vocabulary["six"] = vocabulary.pop("6")
    (copied / "tokenizer.json").write_text(json.dumps(whole))
    refused(config_of(copied, "scorer"), "no token '6'")


def test_files_that_are_not_there(tiny_llama):
    refused(config_of(tiny_llama, "dpo", pairs="gone"), "train.pairs=gone: no such file")
    config = config_of(tiny_llama, "instagger", tags_file="gone")
    refused(config, "train.tags_file=gone: no such file")
    check_train(config.model_copy(update={"tags_file": "s3://bucket/tags"}), RayConfig())


def test_machines_that_lack_something(tiny_llama):
    refused(config_of(tiny_llama, gpus_per_worker=1, workers=2), "need 2 GPUs", "train.workers=2")
    refused(config_of(tiny_llama, lora={"quantized": True}), "quantized needs")
    refused(config_of(tiny_llama, parallel="deepspeed"), "pip install deepspeed")
    refused(None, "train: missing", "conf/recipes/taglm.yaml")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"workers": 3}, "batch_size=8 is no multiple of workers \\* micro_batch_size = 3"),
        ({"selection": "a", "mixture": "b"}, "set selection or mixture, not both"),
        ({"parallel_args": {"version": 2}}, "parallel is ddp"),
        ({"parallel": "deepspeed", "parallel_args": {"train_batch_size": 4}}, "train.batch_size"),
        (
            {
                "parallel": "deepspeed",
                "parallel_args": {
                    "zero_optimization": {"stage3_gather_16bit_weights_on_model_save": False}
                },
            },
            "no whole weights",
        ),
        (
            {"parallel": "fsdp", "parallel_args": {"state_dict_type": "SHARDED_STATE_DICT"}},
            "no whole weights; leave it, or set FULL_STATE_DICT",
        ),
        (
            {
                "task": "dpo",
                "parallel": "fsdp",
                "parallel_args": {"cpu_ram_efficient_loading": True},
            },
            "second model of a preference training",
        ),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"task": "instagger", "tags_file": "f", "tags": "normalised"}, "set tags to raw"),
        ({"task": "scorer", "examples": None}, "set train.examples"),
        ({"task": "dpo", "pairs": None}, "set train.pairs"),
        ({"task": "rlhf"}, "no kind 'rlhf'"),
    ],
)
def test_recipes_that_say_too_little_or_too_much(settings, why):
    with pytest.raises(UsageError, match=why):
        config_of("m", **settings)
