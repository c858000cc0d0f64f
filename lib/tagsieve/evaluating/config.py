"""What is evaluated, and against what. Imports no engine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tagsieve.config import RecipeModel
from tagsieve.engines.llm.config import LlmConfig, RecordedConfig

# The one place where a step knows another one's settings: what is measured is one of its taggers.
from tagsieve.tagging.config import (
    HttpTaggerConfig,
    MemoryTaggerConfig,
    RecordedTaggerConfig,
    VllmTaggerConfig,
)
from tagsieve.test_sets.config import TestSet, named_once

TRAINED_SHARE = 0.01
"""Share of its queries that a tagger's training holds out, where nothing says another."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class EvaluateAnswersConfig(RecipeModel):
    """A model's answers to test sets, for judge.task answers or skills."""

    task: Literal["answers"] = Field("answers", description="A model answers test sets.")
    name: str = Field("model", pattern=_NAME, description="Name of the model, and of its folder.")
    path: str = Field(
        "out/answers", description="Folder of the files NAME/TEST_SET.jsonl with the answers."
    )
    test_sets: tuple[TestSet, ...] = Field(
        min_length=1, description="The questions, as of screen.test_sets."
    )
    engine: LlmConfig = Field(
        description="The model, with those settings of tag (vllm) or tag (http) that are its; or "
        "kind recorded: answers from a file."
    )
    prompt: str = Field(
        "chat",
        description="chat (the question alone, through the model's own chat template), or a file "
        "like those in conf/prompts with {instruction}.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        named_once(self.test_sets)
        if not isinstance(self.engine, RecordedConfig) and self.engine.guided_json:
            raise ValueError("engine.guided_json: an answer is plain text; leave it out")
        return self


class EvaluateTagsConfig(RecipeModel):
    """How well a tagger gives the tags of its teacher (InsTag, section 5)."""

    task: Literal["tags"] = Field("tags", description="A tagger's F1 on queries held out.")
    name: str = Field("tagger", pattern=_NAME, description="Name of the page.")
    path: str = Field(
        "out/evaluate", description="Folder of the page NAME.html and the figures in NAME.json."
    )
    engine: Annotated[
        MemoryTaggerConfig | VllmTaggerConfig | HttpTaggerConfig | RecordedTaggerConfig,
        Field(discriminator="kind"),
    ] = Field(
        description="The tagger to measure, with the settings of tag (memory, vllm, http or "
        "recorded)."
    )
    tags: Literal["raw", "normalised"] = Field(
        "raw",
        description="The teacher's tags: as it gave them, or each replaced by its tag in the "
        "ontology, those without one left out.",
    )
    tags_file: str | None = Field(
        None,
        description="The teacher's tags from a file or URI of JSON lines with query and tags, "
        "compressed by its ending; default: those of the recipe's tag, from the lake.",
    )
    share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the queries that are held out, by a hash; 1: all. Default: that of "
        "the training, else 0.01.",
    )
    seed: int | None = Field(
        None, description="Which queries are held out. Default: that of the training, else 0."
    )
    similarity: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="A tag is right by fuzzy match when its phrase's cosine similarity with any "
        "tag of the other side is above this.",
    )


EvaluateConfig = Annotated[EvaluateAnswersConfig | EvaluateTagsConfig, Field(discriminator="task")]
