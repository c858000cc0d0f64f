"""The base model of a training: what can be seen to be wrong with it before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tagsieve.engines.config import RayConfig
from tagsieve.engines.conversations import chat_parts, chat_template_of
from tagsieve.engines.examples import check_file
from tagsieve.engines.llm.fitting import load_tokenizer
from tagsieve.engines.llm.prompts import load_prompt
from tagsieve.engines.models import everywhere, model_digest, model_folder
from tagsieve.engines.ray import count_gpus, is_embedded
from tagsieve.errors import UsageError
from tagsieve.training.config import (
    DpoConfig,
    InstaggerConfig,
    ScorerConfig,
    SftConfig,
    TrainConfig,
)

_DIGITS = ("1", "2", "3", "4", "5", "6")

_HEADS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How transformers calls models that generate."""

_PROBE = [
    {"role": role, "content": content} for content in ("a", "b") for role in ("user", "assistant")
]


@dataclass(frozen=True)
class Base:
    """A base model: where any machine finds it, the hash of what it is, and its tokenizer with the
    chat template of the training."""

    model: str
    revision: str | None
    digest: str
    tokenizer: Any


def check_train(config: TrainConfig | None, ray_config: RayConfig) -> TrainConfig:
    """The config, after refusing what can be seen to fail: a missing extra, file or GPU, a model
    that is no causal language model or lacks what the task needs. Raises UsageError."""
    if config is None:
        raise UsageError(
            "train: missing; it has no default. Set train.task and train.model, as in "
            "conf/recipes/taglm.yaml"
        )
    lacking = [name for name in ("trl", "peft", "accelerate", "datasets") if not find_spec(name)]
    if lacking:
        raise UsageError(f"train needs {', '.join(lacking)}: pip install tagsieve[train]")
    load_base(config)
    match config:
        case InstaggerConfig(tags_file=str() as path):
            check_file("train.tags_file", path)
        case DpoConfig(pairs=str() as path):
            check_file("train.pairs", path)
    if is_embedded(ray_config):
        _check_machine(config)
    return config


def _check_machine(config: TrainConfig) -> None:
    there = count_gpus()
    wanted = config.workers * (config.gpus_per_worker or 0)
    if wanted > there:
        raise UsageError(
            f"train.workers={config.workers} with train.gpus_per_worker="
            f"{config.gpus_per_worker} need {wanted} GPUs, this machine has {there}; lower them, "
            "or join a cluster by ray.address"
        )
    if config.lora and config.lora.quantized:
        if not find_spec("bitsandbytes"):
            raise UsageError("train.lora.quantized needs bitsandbytes: pip install bitsandbytes")
        if not there:
            raise UsageError(
                "train.lora.quantized needs a GPU, and this machine has none; set it to false, or "
                "join a cluster by ray.address"
            )
    if config.parallel == "deepspeed" and not find_spec("deepspeed"):
        raise UsageError("train.parallel=deepspeed needs it: pip install deepspeed; or set fsdp")


def load_base(config: TrainConfig) -> Base:
    """The base model of a training. Raises UsageError where the task cannot be trained on it."""
    folder = model_folder(config.model, config.revision)
    model_config = _model_config(folder, config.model)
    _check_weights(folder, config.model, model_config)
    longest = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and config.max_tokens > longest:
        raise UsageError(
            f"train.max_tokens={config.max_tokens}: the context of {config.model} is {longest} "
            "tokens; lower it"
        )
    tokenizer = load_tokenizer(folder)
    _check_tokenizer(config, tokenizer)
    if isinstance(config, SftConfig | DpoConfig):
        tokenizer.chat_template = chat_template_of(config.template, tokenizer)
    model, revision = everywhere(config.model, config.revision)
    return Base(model, revision, model_digest(folder), tokenizer)


def _model_config(folder: str, name: str) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if (Path(folder) / "adapter_config.json").is_file() and not (
        Path(folder) / "config.json"
    ).is_file():
        raise UsageError(
            f"train.model={name}: is an adapter; name a whole model, such as one that was trained "
            "with train.lora.merge"
        )
    try:
        found = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"train.model={name}: its config cannot be read: {reason}") from error
    named = found.architectures or ["ForCausalLM"]
    heads = any(name.endswith(_HEADS) for name in named)
    if type(found) not in MODEL_FOR_CAUSAL_LM_MAPPING or not heads:
        raise UsageError(
            f"train.model={name}: a model of type {found.model_type} "
            f"({', '.join(found.architectures or ['no architecture named'])}) is no causal "
            "language model; name one that is, such as a Llama, Mistral or Qwen"
        )
    return found


def _check_weights(folder: str, name: str, model_config: Any) -> None:
    """Compare names and shapes of the weights with what the config asks for; none is read."""
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config)
    # Files may be of the body alone, whose names lack this.
    body = f"{model.base_model_prefix}."
    wanted = {
        key.removeprefix(body): list(value.shape) for key, value in model.state_dict().items()
    }
    there: dict[str, list[int]] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                there[key.removeprefix(body)] = list(tensors.get_slice(key).get_shape())
    odd = [key for key, shape in there.items() if wanted.get(key, shape) != shape]
    # Not all: some architectures are stored under other names, in part.
    known = len(wanted.keys() & there.keys())
    if odd:
        why = f"{odd[0]} is of shape {there[odd[0]]}, and config.json asks for {wanted[odd[0]]}"
    elif there and known < len(wanted) / 3:
        why = f"of {len(wanted)} tensors of a {model_config.model_type} it has {known}"
    else:
        return
    raise UsageError(
        f"train.model={name}: its weights are of another architecture than its config.json: {why}; "
        "name a folder whose files belong together"
    )


def _check_tokenizer(config: TrainConfig, tokenizer: Any) -> None:
    name = config.model
    if tokenizer.eos_token is None:
        raise UsageError(
            f"train.model={name}: its tokenizer has no end sign (eos_token), by which a trained "
            "model would know where to stop; set one in tokenizer_config.json"
        )
    needs = isinstance(config, SftConfig | DpoConfig) and config.template == "chat"
    what = "train.template=chat"
    if isinstance(config, InstaggerConfig):
        needs = load_prompt(config.prompt, ("query",)).text is None
        what = f"train.prompt={config.prompt}"
    if needs and not getattr(tokenizer, "chat_template", None):
        other = "instagger_paper" if isinstance(config, InstaggerConfig) else "vicuna"
        raise UsageError(
            f"{what}: the tokenizer of {name} has no chat template, as those of base models; set "
            f"{what.split('=')[0]}={other}, or name a chat model"
        )
    if needs:
        chat_parts(_PROBE, tokenizer)  # raises for one that is of no use
    if isinstance(config, ScorerConfig):
        known = tokenizer.get_vocab()
        odd = [digit for digit in _DIGITS if digit not in known]
        if odd:
            raise UsageError(
                f"train.model={name}: its tokenizer has no token {odd[0]!r}, and a scorer answers "
                "with one token from 1 to 6; name a model whose tokenizer has them"
            )
