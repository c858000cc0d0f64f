"""How the training set of a scorer is made. Imports no engine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tagsieve.config import RecipeModel
from tagsieve.engines.llm.config import DecodingConfig, HttpConfig, VllmConfig


class EvolveDecodingConfig(DecodingConfig):
    """How a variant, or its scores, are decoded."""

    max_tokens: int = Field(
        1024, ge=1, description="Most tokens of an answer; one that is cut goes to quarantine."
    )


class EvolveVllmConfig(VllmConfig):
    """A model in vLLM."""

    decoding: EvolveDecodingConfig = Field(
        default_factory=EvolveDecodingConfig, description="How the answer is decoded."
    )


class EvolveHttpConfig(HttpConfig):
    """Any OpenAI-compatible endpoint."""

    decoding: EvolveDecodingConfig = Field(
        default_factory=EvolveDecodingConfig, description="How the answer is decoded."
    )


EvolveEngine = Annotated[EvolveVllmConfig | EvolveHttpConfig, Field(discriminator="kind")]


class EvolveConfig(RecipeModel):
    """Evol-Complexity or Evol-Quality (DEITA, sections 2.3 and 2.4)."""

    what: Literal["complexity", "quality"] = Field(
        description="complexity: the first human turn is evolved; quality: the response to it."
    )
    name: str = Field(
        pattern=r"^[A-Za-z0-9._-]+$", description="Name of the training set and of its files."
    )
    path: str = Field("out/evolve", description="Folder of the training set.")
    seeds: int = Field(2000, ge=1, description="How many seeds are drawn.")
    rounds: int = Field(
        5,
        ge=1,
        le=20,
        description="How often a seed is evolved; with the seed, one variant more is scored. More "
        "rounds later go on from those that are there.",
    )
    seed: int = Field(0, description="Decides which seeds are drawn, and by which operators.")
    generator: EvolveEngine = Field(description="The model that evolves.")
    judge: EvolveEngine | None = Field(
        None, description="The model that scores; default: the generator, greedy."
    )
    operators: tuple[str, ...] = Field(
        (), description="Ways to evolve, by their names in the prompt; default: all."
    )
    prompt: str | None = Field(
        None,
        description="The generator's; default: evolve_complexity or evolve_quality. Else a file "
        "like those.",
    )
    judge_prompt: str | None = Field(
        None,
        description="The judge's; default: rank_complexity or rank_quality. Else a file like "
        "those.",
    )
    scorer_prompt: str | None = Field(
        None,
        description="What the scorer is trained to complete; default: the template of the "
        "published scorers, deita_complexity or deita_quality. Else a file like those.",
    )
    max_chars: int = Field(
        8000, ge=1, description="A variant with more characters ran away: to quarantine."
    )

    @property
    def ranker(self) -> EvolveVllmConfig | EvolveHttpConfig:
        """The engine of the judge."""
        if self.judge is not None:
            return self.judge
        greedy = self.generator.decoding.model_copy(update={"temperature": 0.0})
        return self.generator.model_copy(update={"decoding": greedy})

    @model_validator(mode="after")
    def _plain_variants(self) -> Self:
        if self.generator.guided_json:
            raise ValueError("generator.guided_json: a variant is plain text; set it for judge")
        return self
