"""What is trained on what, and how. Imports no engine."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tagsieve.config import RecipeModel
from tagsieve.engines.conversations import Template

Overlong = Literal["leave_out", "refuse"]
Parallel = Literal["ddp", "fsdp", "deepspeed"]

WHERE_AND_HOW_FAST = {
    "path", "workers", "gpus_per_worker", "cpus_per_worker", "micro_batch_size", "parallel",
    "parallel_args", "gradient_checkpointing", "checkpoint_steps", "keep_checkpoints", "log_steps",
    "restarts", "attention",
}  # fmt: skip
"""Settings that say where and how fast, not what: the model is the same when they change."""


_GATHER = "stage3_gather_16bit_weights_on_model_save"
_WHOLE = "FULL_STATE_DICT"
EFFICIENT = "cpu_ram_efficient_loading"
"""In fsdp_config: the first worker alone loads the weights."""


class LoraConfig(RecipeModel):
    """A low-rank adapter in place of all weights (LoRA, QLoRA)."""

    rank: int = Field(16, ge=1, description="Rank of the adapter (r).")
    alpha: int = Field(32, ge=1, description="The adapter's part is scaled by alpha / rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the adapter.")
    modules: tuple[str, ...] = Field(
        (), description="Names of the layers that get one; default: all linear layers but the head."
    )
    quantized: bool = Field(
        False, description="QLoRA: the base model in 4 bits; needs a GPU and bitsandbytes."
    )
    merge: bool = Field(
        True,
        description="Write a whole model, the adapter merged in; else the adapter alone, for "
        "tag.lora and its like.",
    )


class _Training(RecipeModel):
    """What all trainings have."""

    name: str = Field(
        "model",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the model: its folder in path.",
    )
    path: str = Field(
        "out/models",
        description="Folder or URI, reached from all machines: models in folders of their names, "
        "checkpoints in each one's checkpoints.",
    )
    model: str = Field(description="The base model: a folder, or a name on the Hugging Face hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    epochs: float = Field(3.0, gt=0, description="Passes over the rows.")
    steps: int | None = Field(None, ge=1, description="Optimizer steps, in place of epochs.")
    batch_size: int = Field(128, ge=1, description="Rows of a step, over all workers.")
    micro_batch_size: int = Field(
        1,
        ge=1,
        description="Rows that a worker computes at a time; it accumulates the gradients of its "
        "share of a batch.",
    )
    learning_rate: float = Field(2e-5, gt=0, description="The highest one.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the rate falls after the warm-up."
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps in which it rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's.")
    max_grad_norm: float = Field(1.0, gt=0, description="Longer gradients are clipped to it.")
    max_tokens: int = Field(2048, ge=16, description="Longest row in tokens.")
    overlong: Overlong = Field(
        "leave_out",
        description="A longer row is left out and counted, or ends the step before anything is "
        "trained.",
    )
    shuffle: bool = Field(
        True, description="Rows in a new random order in each epoch; else in their own order."
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="Precision of the computation and of the model that is written; auto: bfloat16 "
        "on GPUs, else float32. The weights that are trained are float32.",
    )
    attention: str | None = Field(
        None,
        description="attn_implementation of transformers, such as flash_attention_2; default: what "
        "the model takes by itself.",
    )
    lora: LoraConfig | None = Field(None, description="Set to train an adapter alone.")
    gradient_checkpointing: bool = Field(
        False, description="Less memory for about a third more time."
    )
    workers: int = Field(1, ge=1, description="Ray workers, each with its share of every batch.")
    gpus_per_worker: Literal[0, 1] | None = Field(
        None, description="Default: 1 where the cluster has one for each, else none."
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="Default: 1 with a GPU, else the cores, shared."
    )
    parallel: Parallel = Field(
        "ddp",
        description="ddp: each worker has the whole model, as always on CPUs; fsdp, deepspeed: a "
        "part of it. A training does not go on from checkpoints of another one.",
    )
    parallel_args: dict[str, Any] = Field(
        {},
        description="fsdp_config of transformers, or DeepSpeed's configuration, as parallel says; "
        "beside the defaults, section by section.",
    )
    checkpoint_steps: int = Field(
        100, ge=1, description="Steps between checkpoints: the most that a lost worker repeats."
    )
    keep_checkpoints: int = Field(
        2,
        ge=1,
        description="Checkpoints that are kept: the newest ones or, where rows are held out, the "
        "best ones and the newest.",
    )
    log_steps: int = Field(10, ge=1, description="Steps between lines of the history.")
    eval_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the rows that are held out, by a hash. With some, the checkpoint of "
        "the least loss on them becomes the model, else the last one.",
    )
    restarts: int = Field(3, ge=0, description="Times that lost workers are replaced.")
    seed: int = Field(0, description="Of the order of rows, what is held out, dropout and noise.")

    @field_validator("parallel_args")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = {"train_batch_size", "train_micro_batch_size_per_gpu"} & set(value)
        if ours:
            raise ValueError("set train.batch_size and train.micro_batch_size, not DeepSpeed's own")
        zero = value.get("zero_optimization", {})
        if not zero.get(_GATHER, True):
            raise ValueError(f"{_GATHER} is false, and a checkpoint would have no whole weights")
        if value.get("state_dict_type", _WHOLE) != _WHOLE:
            raise ValueError(
                f"state_dict_type={value['state_dict_type']}: a checkpoint would have no whole "
                f"weights; leave it, or set {_WHOLE}"
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        share = self.workers * self.micro_batch_size
        if self.batch_size % share:
            raise ValueError(
                f"batch_size={self.batch_size} is no multiple of workers * micro_batch_size = "
                f"{share}; set one of them so that it is"
            )
        if self.parallel == "ddp" and self.parallel_args:
            raise ValueError("parallel_args are of fsdp or deepspeed, and parallel is ddp")
        return self


class SftConfig(_Training):
    """Supervised fine-tuning; the loss is that of the assistant's words alone.

    Defaults: InsTag's TagLM (section 4.2) but for the epochs, which the recipes set.
    """

    task: Literal["sft"] = Field("sft", description="Fine-tuning on conversations.")
    selection: str | None = Field(
        None, description="Selection to train on; default: the recipe's, unless it mixes."
    )
    mixture: str | None = Field(
        None, description="Mixture to train on; default: the recipe's, if it mixes."
    )
    template: Template = Field(
        "vicuna",
        description="vicuna (v1.1), alpaca (with and without input), wizardlm, or chat: the "
        "model's own chat template. The trained model has it as its chat template.",
    )
    overlong: Literal["truncate", "leave_out", "refuse"] = Field(  # type: ignore[assignment]
        "truncate",
        description="A longer row loses its end, or is left out and counted, or ends the step "
        "before anything is trained.",
    )
    packing: bool = Field(
        False, description="Several rows in one of max_tokens; they do not see each other."
    )
    neftune: float | None = Field(
        None, gt=0, description="NEFTune: alpha of the noise in the embeddings, 5 in its paper."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.selection is not None and self.mixture is not None:
            raise ValueError("set selection or mixture, not both")
        return self


class InstaggerConfig(_Training):
    """Distillation of a tagger (InsTag, section 5): a query in, its tags with explanations out."""

    task: Literal["instagger"] = Field("instagger", description="A tagger, from given tags.")
    prompt: str = Field(
        "instagger_paper",
        description="instagger_paper, instagger_chat, or a file like those in conf/prompts; the "
        "same then as tag.prompt.",
    )
    tags: Literal["raw", "normalised"] = Field(
        "raw",
        description="The tags as the recipe's tagger gave them, or each replaced by its tag in the "
        "ontology; those without one are left out.",
    )
    tags_file: str | None = Field(
        None,
        description="JSON lines with query and tags (of tag and explanation), in place of the "
        "lake's raw_tags.",
    )
    epochs: float = Field(1.0, gt=0, description="Passes over the queries; more over-fit (InsTag).")
    batch_size: int = Field(512, ge=1, description="Queries of a step, over all workers.")
    eval_share: float = Field(
        0.01, ge=0, lt=1, description="As of sft; the step evaluate measures the tagger by them."
    )

    @model_validator(mode="after")
    def _raw_file(self) -> Self:
        if self.tags_file is not None and self.tags == "normalised":
            raise ValueError("tags of a tags_file are taken as they are; set tags to raw")
        return self


class ScorerConfig(_Training):
    """A complexity or quality scorer (DEITA, section 3), from the training set of evolve."""

    task: Literal["scorer"] = Field("scorer", description="A scorer, from evolved variants.")
    examples: str | None = Field(
        None,
        description="JSON lines or Parquet with prompt and completion (1 to 6); default: what the "
        "recipe's evolve writes.",
    )


class DpoConfig(_Training):
    """Direct preference optimisation; DEITA does it on 10,000 pairs after fine-tuning."""

    task: Literal["dpo"] = Field("dpo", description="Preference pairs.")
    pairs: str | None = Field(
        None,
        description="JSON lines or Parquet with prompt, chosen and rejected: texts, or chosen and "
        "rejected as lists of messages (role, content). Default: what the recipe's judge (task "
        "answers) said in both orders.",
    )
    template: Template = Field("vicuna", description="As of sft.")
    beta: float = Field(0.1, gt=0, description="How much it costs to go from the base model.")
    learning_rate: float = Field(5e-7, gt=0, description="The highest one.")

    @model_validator(mode="after")
    def _both_models_are_loaded(self) -> Self:
        if self.lora is None and self.parallel_args.get(EFFICIENT):
            raise ValueError(
                f"{EFFICIENT} would leave the second model of a preference training empty on all "
                "workers but one; leave it, or train an adapter (lora)"
            )
        return self


TrainConfig = Annotated[
    SftConfig | InstaggerConfig | ScorerConfig | DpoConfig, Field(discriminator="task")
]
