"""What is trained on what, and how. Imports no engine.

Defaults are those of the papers where a task has any: TagLM (InsTag, section 4.2) for sft, InsTagger
(InsTag, section 5) for instagger.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tagsieve.config import RecipeModel
from tagsieve.engines.conversations import Template


class LoraSettings(RecipeModel):
    """A low-rank adapter in place of all weights."""

    rank: int = Field(16, ge=1, description="Rank of the adapter (r).")
    alpha: int = Field(32, ge=1, description="Its scale is alpha / rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the adapter.")
    modules: tuple[str, ...] = Field(
        (), description="Names of the layers that get one; default: all linear layers."
    )
    quantized: bool = Field(
        False, description="QLoRA: the base model's weights in 4 bits; needs a GPU."
    )


class _Training(RecipeModel):
    """What all trainings have."""

    name: str = Field(
        "model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the model."
    )
    path: str = Field(
        "out/models", description="Folder or URI of the models and their checkpoints."
    )
    model: str = Field(description="The base model: a folder, or a name on the hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    epochs: float = Field(3.0, gt=0, description="Passes over the rows.")
    steps: int | None = Field(None, ge=1, description="Optimizer steps, in place of epochs.")
    batch: int = Field(128, ge=1, description="Rows of a step, over all workers.")
    rows_at_once: int = Field(
        1, ge=1, description="Rows that a worker computes at a time; the rest of its share of a "
        "batch is accumulated.",
    )  # fmt: skip
    lr: float = Field(2e-5, gt=0, description="Highest learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the rate falls after the warm-up."
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps in which it rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's.")
    clip: float = Field(1.0, gt=0, description="Longest gradient (norm).")
    max_tokens: int = Field(2048, ge=16, description="Longest row in tokens.")
    overlong: Literal["truncate", "leave_out"] = Field(
        "truncate", description="A longer row loses its end, or is left out and counted."
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="Precision; auto: bfloat16 on a GPU, else float32."
    )
    lora: LoraSettings | None = Field(None, description="Set to train an adapter alone.")
    gradient_checkpointing: bool = Field(
        False, description="Less memory for about a third more time."
    )
    workers: int = Field(1, ge=1, description="Ray workers, each with its share of every batch.")
    gpus_per_worker: float | None = Field(
        None, ge=0, description="Default: 1 where the cluster has a GPU for each, else none."
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="Default: 1 with a GPU, else the cores, shared."
    )
    parallel: Literal["ddp", "fsdp", "deepspeed"] = Field(
        "ddp", description="ddp: each worker has the whole model; fsdp, deepspeed: a part of it."
    )
    parallel_args: dict[str, Any] = Field(
        {}, description="Settings of FSDP (fsdp_config) or DeepSpeed, as their documents have them."
    )
    checkpoint_steps: int = Field(
        100, ge=1, description="Steps between checkpoints: the most that a lost worker repeats."
    )
    keep: int = Field(2, ge=1, description="Checkpoints that are kept, the best one among them.")
    eval_share: float = Field(
        0.0, ge=0, lt=1, description="Share of the rows that are held out, by a hash of their id; "
        "their loss decides which checkpoint is the best.",
    )  # fmt: skip
    restarts: int = Field(3, ge=0, description="Times that lost workers are replaced.")
    seed: int = Field(0, description="Of the order of rows, and of what is initialised.")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        share = self.workers * self.rows_at_once
        if self.batch % share:
            raise ValueError(
                f"batch={self.batch} is no multiple of workers * rows_at_once = {share}; set one "
                "of them so that it is"
            )
        return self


class SftConfig(_Training):
    """Supervised fine-tuning on a selection or a mixture."""

    task: Literal["sft"] = Field("sft", description="Supervised fine-tuning.")
    rows: str | None = Field(
        None,
        description="Selection or mixture; default: the recipe's own, its mixture if it has one.",
    )
    template: Template = Field("vicuna", description="vicuna (v1.1), alpaca, wizardlm or chat.")
    packing: bool = Field(
        False, description="Several rows in one of max_tokens, which do not see each other."
    )
    neftune: float | None = Field(
        None, gt=0, description="NEFTune: noise in the embeddings, alpha of its paper."
    )


class InstaggerConfig(_Training):
    """Distillation of a tagger: a query in, its tags with explanations out."""

    task: Literal["instagger"] = Field("instagger", description="A tagger from tags.")
    tags: Literal["raw", "normalised"] = Field(
        "raw", description="raw_tags as the tagger gave them, or each replaced by its tag in the "
        "ontology, those without one left out.",
    )  # fmt: skip
    prompt: str = Field(
        "instagger_paper",
        description="instagger_paper, instagger_chat, or a file like those in conf/prompts.",
    )
    epochs: float = Field(1.0, gt=0, description="Passes over the queries; more over-fit (InsTag).")
    batch: int = Field(512, ge=1, description="Queries of a step, over all workers.")
    eval_share: float = Field(
        0.01, ge=0, lt=1, description="Share of the queries that are held out, by a hash: F1 is "
        "told of them.",
    )  # fmt: skip


class ScorerConfig(_Training):
    """A scorer in the manner of DEITA, from the training set of the step evolve."""

    task: Literal["scorer"] = Field("scorer", description="A complexity or quality scorer.")
    path_of_rows: str | None = Field(
        None, description="Files of prompt and completion; default: those of the recipe's evolve."
    )


class DpoConfig(_Training):
    """Direct preference optimisation."""

    task: Literal["dpo"] = Field("dpo", description="Preference pairs.")
    pairs: str | None = Field(
        None, description="File of prompt, chosen and rejected; default: the judgements of the "
        "recipe's judge, of pairs whose winner holds in both orders.",
    )  # fmt: skip
    template: Template = Field("vicuna", description="As of sft.")
    beta: float = Field(0.1, gt=0, description="How far the model may go from where it began.")
    lr: float = Field(5e-7, gt=0, description="Highest learning rate.")


TrainConfig = Annotated[
    SftConfig | InstaggerConfig | ScorerConfig | DpoConfig, Field(discriminator="task")
]
