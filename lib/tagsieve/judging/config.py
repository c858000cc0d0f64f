"""What is judged, and by whom. Imports no engine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tagsieve.config import RecipeModel
from tagsieve.engines.llm.config import LlmConfig
from tagsieve.test_sets.config import Answers, TestSet, named_once

ScaleName = Literal[10, 100, "winner"]


class _Judge(RecipeModel):
    """A model and how it is asked."""

    engine: LlmConfig = Field(
        description="The judge, with those settings of tag (vllm) or tag (http) that are its; or "
        "kind recorded: answers from a file."
    )


class _PairJudge(_Judge):
    """A judge of pairs."""

    scale: ScaleName = Field(
        100,
        description="Scores of 1 to 10 or 1 to 100, or no scores but a winner ([[A]], [[B]], "
        "[[C]] for a tie).",
    )


class _Reported(RecipeModel):
    """A task that ends in figures."""

    name: str = Field(
        "judge", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the page."
    )
    path: str = Field(
        "out/judge", description="Folder of the page NAME.html and the figures in NAME.json."
    )


class JudgePairsConfig(_PairJudge):
    """Comparative scoring (TACOS, section III.B): the conversations of a cluster in pairs."""

    task: Literal["pairs"] = Field(
        "pairs", description="Conversations of a cluster (step cluster), two by two."
    )
    prompt: str = Field(
        "judge_pair",
        description="Or a file like those in conf/prompts with {first} and {second}; {high} is the "
        "end of the scale.",
    )
    rounds: int = Field(
        1,
        ge=1,
        le=100,
        description="In each round every conversation of a cluster of two or more is in a pair, "
        "drawn anew. More rounds later add theirs.",
    )
    seed: int = Field(0, description="Of the pairs.")


class AnswersJudge(_PairJudge):
    """A judge of answers."""

    prompt: str = Field(
        "judge_answers",
        description="judge_answers, judge_answers_no_length (the probe for length bias), or a file "
        "like those in conf/prompts with {question}, {first} and {second}; {high} is the end of "
        "the scale.",
    )
    scale: ScaleName = Field(10, description="As of pairs.")


class JudgeAnswersConfig(_Reported):
    """Winning scores (Longest, section 4.1; TACOS, section IV): two models' answers."""

    task: Literal["answers"] = Field("answers", description="Models' answers to test sets.")
    test_sets: tuple[TestSet, ...] = Field(
        min_length=1, description="The questions, as of screen.test_sets."
    )
    answers: dict[str, Answers] = Field(
        min_length=2,
        description="The answers of each model by its name; the first one is compared with each of "
        "the others.",
    )
    judges: dict[str, AnswersJudge] = Field(
        min_length=1,
        description="Judges by name; of several, also by their prompts alone, the agreement is "
        "told.",
    )
    confidence: float = Field(
        0.95, gt=0, lt=1, description="Level of the bootstrap intervals of scores."
    )
    seed: int = Field(0, description="Of the bootstrap.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        named_once(self.test_sets)
        return self


class JudgeTagsConfig(_Judge, _Reported):
    """The quality of tags (InsTag, section 3.3): precision and consistency."""

    task: Literal["tags"] = Field("tags", description="The tags of queries.")
    precision_prompt: str = Field(
        "judge_tag_precision",
        description="Or a file like those in conf/prompts with {query} and {tags}.",
    )
    consistency_prompt: str = Field(
        "judge_tag_consistency",
        description="Or a file like those in conf/prompts with {tag} and {queries}.",
    )
    cases: int = Field(2000, ge=1, description="Cases of precision, and as many of consistency.")
    queries: int = Field(5, ge=2, le=50, description="Queries of a case of consistency.")
    controls: int = Field(
        200, ge=0, description="Counterfactual cases of each kind, which a good judge fails."
    )
    humans: int = Field(
        3, ge=0, description="People for whom a sheet is written; 0: none. Filled in, it is read."
    )
    human_cases: int = Field(
        40, ge=1, description="Cases of each kind in a sheet, and as many controls at most."
    )
    seed: int = Field(0, description="Of what is drawn.")


class JudgeSkillsConfig(_Judge, _Reported):
    """Skills of models (FLASK, as "Demystifying Instruction Mixing" uses it)."""

    task: Literal["skills"] = Field("skills", description="Models' answers, by single skills.")
    prompt: str = Field(
        "judge_skills",
        description="Or a file like those in conf/prompts with {question}, {response}, {skills}.",
    )
    test_sets: tuple[TestSet, ...] = Field(
        min_length=1, description="The questions, as of screen.test_sets."
    )
    skills: str = Field("skill", description="Key of a question's list of skills, as of field.")
    keep: int = Field(
        8,
        ge=1,
        description="The most frequent skills; a question with any other one is left out.",
    )
    answers: dict[str, Answers] = Field(
        min_length=1, description="The answers of each model by its name."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        named_once(self.test_sets)
        return self


JudgeConfig = Annotated[
    JudgePairsConfig | JudgeAnswersConfig | JudgeTagsConfig | JudgeSkillsConfig,
    Field(discriminator="task"),
]
