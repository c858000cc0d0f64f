"""A recipe: the configs of all steps, in one YAML file. Imports no engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from tagsieve.config import RecipeModel, apply_overrides, validate
from tagsieve.embedding.config import EmbedConfig, SentenceEmbedConfig
from tagsieve.engines.config import RayConfig, SparkConfig
from tagsieve.errors import UsageError
from tagsieve.evaluating.config import EvaluateConfig
from tagsieve.evolving.config import EvolveConfig
from tagsieve.ingest.config import IngestConfig, Input
from tagsieve.judging.config import JudgeAnswersConfig, JudgeConfig, JudgePairsConfig
from tagsieve.mixing.config import MixConfig
from tagsieve.ontology.config import AnalyzeConfig, ClusterConfig, NormalizeConfig
from tagsieve.reporting.config import ExportConfig, ReportConfig
from tagsieve.scoring.config import ScoreConfig
from tagsieve.screening.config import ScreenConfig
from tagsieve.selection.config import (
    ComparativeConfig,
    ComplexityFirstConfig,
    MatchTargetConfig,
    SelectConfig,
)
from tagsieve.selection.sweeping import expanded
from tagsieve.tagging.config import MemoryTaggerConfig, TagConfig
from tagsieve.training.config import DpoConfig, ScorerConfig, SftConfig, TrainConfig

StepName = Literal[
    "ingest", "tag", "normalize", "analyze", "cluster", "evolve", "embed", "screen", "score",
    "judge", "select", "mix", "export", "train", "evaluate", "report",
]  # fmt: skip
STEPS: tuple[StepName, ...] = (
    "ingest", "tag", "normalize", "analyze", "cluster", "evolve", "embed", "screen", "score",
    "judge", "select", "mix", "export", "train", "evaluate", "report",
)  # fmt: skip
DEFAULT_STEPS: tuple[StepName, ...] = (
    "ingest", "tag", "normalize", "analyze", "select", "export", "report",
)  # fmt: skip
"""What a recipe runs that does not say: all but the steps that only some selections need."""


class Recipe(RecipeModel):
    """What `tagsieve run` does: inputs, steps and their settings."""

    lake: str = Field(description="Folder or URI of all tables.")
    inputs: tuple[Input, ...] = Field((), description="What ingest reads.")
    steps: tuple[StepName, ...] = Field(
        DEFAULT_STEPS, min_length=1, description="Steps of `tagsieve run`."
    )
    ingest: IngestConfig = Field(default_factory=IngestConfig)
    tag: TagConfig = Field(default_factory=MemoryTaggerConfig)
    normalize: NormalizeConfig = Field(default_factory=NormalizeConfig)
    analyze: AnalyzeConfig = Field(default_factory=AnalyzeConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    evolve: EvolveConfig | None = Field(
        None, description="What the step evolve does; needed by it alone."
    )
    embed: EmbedConfig = Field(default_factory=SentenceEmbedConfig)
    screen: ScreenConfig | None = Field(
        None,
        description="What the step screen looks for, which a selection then leaves out; needed by "
        "the step alone.",
    )
    score: ScoreConfig = Field(default_factory=ScoreConfig)
    judge: JudgeConfig | None = Field(
        None, description="What the step judge does; needed by it and the strategy comparative."
    )
    select: SelectConfig = Field(default_factory=ComplexityFirstConfig)
    sweep: tuple[SelectConfig, ...] = Field(
        (), description="The other selections, where `select` stands for several."
    )
    mix: MixConfig | None = Field(None, description="What the step mix does; needed by it alone.")
    export: ExportConfig = Field(default_factory=ExportConfig)
    train: TrainConfig | None = Field(
        None, description="What the step train does; needed by it alone."
    )
    evaluate: EvaluateConfig | None = Field(
        None, description="What the step evaluate does; needed by it alone."
    )
    report: ReportConfig = Field(default_factory=ReportConfig)
    spark: SparkConfig = Field(default_factory=SparkConfig)
    ray: RayConfig = Field(default_factory=RayConfig)

    @property
    def pools(self) -> list[str]:
        """The pools of the inputs to choose from, in order, each once."""
        return list(dict.fromkeys(each.pool for each in self.inputs if not each.target))

    @property
    def targets(self) -> list[str]:
        """The pools that are a target, in order, each once."""
        return list(dict.fromkeys(each.pool for each in self.inputs if each.target))

    @property
    def selections(self) -> tuple[SelectConfig, ...]:
        """All selections."""
        return (self.select, *self.sweep)

    def _check_targets(self) -> None:
        for config in self.selections:
            if not isinstance(config, MatchTargetConfig):
                continue
            if not (config.target or self.targets):
                raise ValueError(
                    "select.strategy=match_target needs a target: give an input target: true, or "
                    "name pools in select.target"
                )
            if "vectors" in config.by and self.embed.text == "conversation":
                raise ValueError(
                    "select.by=vectors compares what people ask, and embed.text is conversation; "
                    "set embed.text to instruction or query, or select.by to [tags]"
                )

    def _check_train(self) -> None:
        config = self.train
        if isinstance(config, SftConfig) and not (config.selection or config.mixture):
            if self.mix is not None and len(self.mix.names(self.pools)) > 1:
                raise ValueError("the recipe makes several mixtures; name one in train.mixture")
            if self.mix is None and self.sweep:
                raise ValueError("the recipe makes several selections; name one in train.selection")
        if isinstance(config, ScorerConfig) and config.examples is None and self.evolve is None:
            raise ValueError(
                "train.task=scorer is trained on what evolve writes; set train.examples to its "
                "file, or give the section evolve"
            )
        preferred = isinstance(config, DpoConfig) and config.pairs is None
        if preferred and not isinstance(self.judge, JudgeAnswersConfig):
            raise ValueError(
                "train.task=dpo is trained on preference pairs; set train.pairs to a file of them, "
                "or judge.task to answers"
            )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "ingest" in self.steps and not self.inputs:
            raise ValueError("inputs is empty, and the step ingest reads it; name at least one")
        order = [STEPS.index(step) for step in self.steps]
        if order != sorted(set(order)):
            raise ValueError(f"steps must follow this order, each once: {', '.join(STEPS)}")
        both = sorted(set(self.pools) & set(self.targets))
        if both:
            raise ValueError(f"inputs: one of pool {both[0]} is a target, another is not; name two")
        if self.screen is not None and self.screen.embedding and self.embed.text == "conversation":
            raise ValueError(
                "screen.embedding compares questions with what people ask, and embed.text is "
                "conversation; set embed.text to instruction or query"
            )
        if "select" in self.steps:
            self._check_targets()
        if "select" in self.steps:
            compared = any(isinstance(each, ComparativeConfig) for each in self.selections)
            if compared and not isinstance(self.judge, JudgePairsConfig):
                raise ValueError(
                    "select.strategy=comparative goes by what a judge says of pairs; set "
                    "judge.task to pairs, and judge.engine, as in conf/recipes/tacos.yaml"
                )
            known = {scorer.name for scorer in self.score.scorers}
            named = {name for config in self.selections for name in config.scorers}
            lacking = sorted(named - known)
            if lacking:
                raise ValueError(
                    f"select names {lacking[0]}, which is no scorer of score.scorers "
                    f"({', '.join(sorted(known)) or 'there is none'})"
                )
        self._check_train()
        if self.mix is not None:
            self.mix.check(self.pools)
            lengths = {scorer.name for scorer in self.score.scorers if scorer.kind == "length"}
            lacking = sorted(set(self.mix.tokens_by) - lengths)
            if lacking:
                raise ValueError(
                    f"mix.tokens_by names {lacking[0]}, which is no scorer of kind length in "
                    f"score.scorers ({', '.join(sorted(lengths)) or 'there is none'})"
                )
        return self


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe file with dotted overrides.

    Raises UsageError that lists every error of the recipe at once.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(
            f"recipe {path}: no such file (looked from {Path.cwd()}); "
            "`tagsieve init` writes one to start from"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path}: cannot be read: {error}") from error
    try:
        values: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"recipe {path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"recipe {path}: expected keys and values at the top, such as lake: ...")
    values = apply_overrides(values, overrides)
    if "select" in values:
        first, *others = expanded(values["select"])
        values["select"] = first
        if others:
            values["sweep"] = others
    return validate(Recipe, values, f"recipe {path}")
