"""How conversations become vectors."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from tagsieve.config import kind_or
from tagsieve.engines.config import CommitConfig

Template = Literal["vicuna", "chat", "plain"]


class _EncoderConfig(CommitConfig):
    """What all encoders have in common."""

    revision: str | None = Field(None, description="Branch, tag or commit of the model on the hub.")
    text: Literal["instruction", "query", "conversation"] = Field(
        "instruction",
        description="What is embedded: the first human turn, all human turns, or all turns.",
    )
    max_tokens: int | None = Field(
        None,
        ge=8,
        description="Longest text in tokens; default: the model's own limit. Of a longer one the "
        "first so many are read.",
    )
    overlong: Literal["truncate", "quarantine"] = Field(
        "truncate",
        description="A text longer than max_tokens loses its end (column truncated), or goes to "
        "quarantine.",
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="Precision; auto: bfloat16 with a GPU or a CPU that has it, by the machine "
        "that submits. Part of the encoder: set it where several machines submit to one lake.",
    )
    replicas: int = Field(1, ge=1, description="Actors, each with the model.")
    cpus_per_replica: int | None = Field(
        None, ge=1, description="Cores of an actor; default: 1 with a GPU, else all, shared."
    )
    gpus_per_replica: float | None = Field(
        None, ge=0, description="GPUs of an actor; default: 1 where there are enough, else 0."
    )


class SentenceEmbedConfig(_EncoderConfig):
    """A sentence encoder: unit vectors."""

    kind: Literal["sentence"] = Field("sentence", description="A sentence encoder.")
    model: str | None = Field(
        None, description="A folder, or a name on the Hugging Face hub; default: MiniLM, packaged."
    )
    pooling: Literal["mean", "first_token", "last_token"] | None = Field(
        None, description="Which states make the vector; default: as the model's own files say."
    )


class CausalEmbedConfig(_EncoderConfig):
    """A causal language model: its last layer's states, as they are."""

    kind: Literal["causal"] = Field("causal", description="A causal language model.")
    model: str = Field(description="A folder, or a name on the Hugging Face hub.")
    pooling: Literal["mean", "last_token"] | None = Field(
        None,
        description="Which states make the vector; default: last_token of a conversation (DEITA), "
        "else mean.",
    )
    template: Template | None = Field(
        None,
        description="How a conversation becomes one text: vicuna (v1.1, as in DEITA), chat (the "
        "model's chat template) or plain (a line for each turn); default: vicuna. Other texts are "
        "plain.",
    )

    @model_validator(mode="after")
    def _template_of_conversation(self) -> Self:
        if self.text != "conversation" and self.template not in (None, "plain"):
            raise ValueError(f"template {self.template} is for conversations: set text with it")
        return self


EmbedConfig = Annotated[
    Annotated[SentenceEmbedConfig, Tag("sentence")] | Annotated[CausalEmbedConfig, Tag("causal")],
    kind_or("sentence"),
]
