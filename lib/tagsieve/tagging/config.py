"""How queries are tagged."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from tagsieve.config import RecipeModel, kind_or
from tagsieve.engines.config import CommitConfig
from tagsieve.engines.llm.config import HttpConfig, RecordedConfig, VllmConfig


class MemoryTaggerConfig(CommitConfig):
    """The embedded tagger: MiniLM sentence vectors and a bank of labelled examples."""

    kind: Literal["memory"] = Field("memory", description="The embedded tagger.")
    banks: tuple[str, ...] = Field(
        ("builtin",),
        min_length=1,
        description="Folders made by `tagsieve bank build` from your own labelled queries, and "
        "`builtin`, the one that ships; of several banks the tags are joined.",
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="Precision of the encoder; auto: bfloat16 where the CPU of the machine that "
        "submits has it. Part of the tagger: set it where several machines submit to one lake.",
    )
    replicas: int = Field(1, ge=1, description="Actors, each with the encoder and the bank.")
    cpus_per_replica: int | None = Field(
        None, ge=1, description="Cores of an actor; default: all of the embedded Ray, shared."
    )


class _LlmTagger(RecipeModel):
    """What taggers that ask a language model have in common."""

    overlong: Literal["truncate", "quarantine"] = Field(
        "truncate",
        description="A query too long for the model loses its middle (flag query_truncated), or "
        "goes to quarantine.",
    )
    max_tags: int = Field(
        50, ge=1, description="An answer with more tags than this ran away: to quarantine."
    )
    max_tag_words: int = Field(
        10, ge=1, description="An item with more words is a sentence, not a tag: left out."
    )


class VllmTaggerConfig(VllmConfig, _LlmTagger):
    """InsTagger, or any model that vLLM runs, in Ray actors."""

    prompt: str = Field(
        "instagger_paper",
        description="instagger_paper or instagger_chat (for the InsTagger checkpoint), open_tags "
        "(any chat model), or a file like those in conf/prompts.",
    )


class HttpTaggerConfig(HttpConfig, _LlmTagger):
    """Any OpenAI-compatible endpoint."""

    prompt: str = Field(
        "open_tags",
        description="As of vllm; a prompt with text goes to /completions, one with messages to "
        "/chat/completions.",
    )


class RecordedTaggerConfig(RecordedConfig, _LlmTagger):
    """What a model answered before: lines of `query` and `answer`."""

    prompt: str = Field("open_tags", description="What it was asked by, as of http.")


LlmTaggerConfig = Annotated[
    VllmTaggerConfig | HttpTaggerConfig | RecordedTaggerConfig, Field(discriminator="kind")
]


class CascadeConfig(RecipeModel):
    """The memory tagger where it is confident, a language model for the rest."""

    kind: Literal["cascade"] = Field("cascade", description="Two taggers, one after the other.")
    memory: MemoryTaggerConfig = Field(
        default_factory=MemoryTaggerConfig,
        description="The embedded tagger, with the settings of tag (memory).",
    )
    llm: LlmTaggerConfig = Field(
        description="The tagger of the rest, with the settings of tag (vllm) or tag (http)."
    )
    llm_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Budget: the share of queries that the language model answers. The threshold "
        "is the one that gives this share on the first run, and stays.",
    )
    target_f1: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Quality: the least micro F1, taking the language model's tags for right, as "
        "the memory tagger's own scores let expect it.",
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="The least confidence of the memory tagger, given outright."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = (self.llm_share, self.target_f1, self.threshold)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("set exactly one of llm_share, target_f1 and threshold")
        return self


SingleTaggerConfig = MemoryTaggerConfig | VllmTaggerConfig | HttpTaggerConfig | RecordedTaggerConfig


TagConfig = Annotated[
    Annotated[MemoryTaggerConfig, Tag("memory")]
    | Annotated[VllmTaggerConfig, Tag("vllm")]
    | Annotated[HttpTaggerConfig, Tag("http")]
    | Annotated[RecordedTaggerConfig, Tag("recorded")]
    | Annotated[CascadeConfig, Tag("cascade")],
    kind_or("memory"),
]
