"""What is taken for a near-duplicate, and what for a question of a test set."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tagsieve.config import RecipeModel
from tagsieve.test_sets.config import TestSet, named_once


class ShingleConfig(RecipeModel):
    """The pieces of a text whose sets are compared."""

    of: Literal["words", "characters"] = Field(
        "words",
        description="Runs of words (a character of a script without spaces is a word) or of "
        "characters, spaces left out.",
    )
    size: int = Field(5, ge=1, description="How many make a shingle; a shorter text is one.")


class NearDuplicateConfig(RecipeModel):
    """Near-duplicates by MinHash LSH, each verified by its exact Jaccard similarity."""

    text: Literal["conversation", "instruction"] = Field(
        "conversation", description="What is compared: all turns, or the first human turn."
    )
    shingle: ShingleConfig = Field(default_factory=ShingleConfig)
    threshold: float = Field(
        0.8, gt=0, le=1, description="Least Jaccard similarity of the shingles of two twins."
    )
    bands: int = Field(
        20,
        ge=1,
        description="LSH bands (b) of r hashes: a pair of similarity s is compared with "
        "probability 1 - (1 - s^r)^b.",
    )
    band_size: int = Field(6, ge=1, description="Hashes in a band (r).")


class NGramConfig(RecipeModel):
    """Questions found by the n-grams of their words."""

    size: int = Field(2, ge=1, description="Words of an n-gram (n).")
    min_overlap: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Least share of a question's n-grams, each weighted by its inverse document "
        "frequency among the turns, that a turn must have.",
    )
    whole_below: int = Field(
        5, ge=1, description="A question of fewer words matches only a turn of the same words."
    )
    turns: Literal["human", "all"] = Field("human", description="Turns that are looked at.")


class QuestionVectorConfig(RecipeModel):
    """Questions found by the vectors of the step embed."""

    threshold: float = Field(
        0.95, gt=-1, le=1, description="Least cosine similarity to a question."
    )


class ScreenConfig(RecipeModel):
    """Which contents are left out of selections: near-duplicates, and questions of test sets."""

    near_duplicates: NearDuplicateConfig | None = Field(
        default_factory=NearDuplicateConfig, description="Null: not looked for."
    )
    test_sets: tuple[TestSet, ...] = Field(
        (), description="Whose questions must not be trained on."
    )
    ngram: NGramConfig | None = Field(
        default_factory=NGramConfig, description="Null: questions are not looked for by n-grams."
    )
    embedding: QuestionVectorConfig | None = Field(
        None, description="Set to look for questions by vectors, too; needs the step embed."
    )

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.near_duplicates is None and not self.test_sets:
            raise ValueError("near_duplicates is null and test_sets is empty; set one of them")
        if self.test_sets and self.ngram is None and self.embedding is None:
            raise ValueError("test_sets are given, but ngram and embedding are null; set one")
        named_once(self.test_sets)
        return self
