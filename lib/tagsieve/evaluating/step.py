"""The evaluate step: a model's answers to test sets, or a tagger's F1, out of models and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tagsieve.engines.config import RayConfig
from tagsieve.engines.context import Context
from tagsieve.errors import UsageError
from tagsieve.evaluating.answers import AnswersTask
from tagsieve.evaluating.config import EvaluateAnswersConfig, EvaluateConfig
from tagsieve.evaluating.tags import TagSources, TagsTask


class Task(Protocol):
    """What a model is asked, and what comes of it."""

    unit: str
    """Of the ledger."""

    writes: Sequence[str]
    """The tables that answers go to."""

    @property
    def reads(self) -> Sequence[str]:
        """The tables that say what is asked."""

    def check(self, ray_config: RayConfig) -> None:
        """Refuse what can be seen to fail. Raises UsageError."""

    def ask(self, context: Context) -> None:
        """Ask what has no answer yet, here or in quarantine; counts in the step's run."""

    def ask_again(self, context: Context, reasons: Sequence[str]) -> None:
        """Ask what lies in quarantine, for any of `reasons` (none: for all). Raises RunError when
        nothing lies there."""

    def tell(self, context: Context) -> None:
        """Show, and write, what came of it; after either."""


def task_of(config: EvaluateConfig | None, tags: TagSources | None = None) -> Task:
    """The task of a config; `tags`: what that task needs of other steps.

    Raises UsageError where there is no config, and where a prompt or a file cannot be used.
    """
    if config is None:
        raise UsageError(
            "evaluate: missing; it has no default. Set evaluate.task and what it needs, as in "
            "conf/recipes/answers.yaml"
        )
    if isinstance(config, EvaluateAnswersConfig):
        return AnswersTask(config)
    assert tags is not None
    return TagsTask(config, tags)


def evaluate(context: Context, task: Task) -> None:
    """Ask the task's model whatever it has not answered yet, here or in quarantine, and tell what
    came of it, also when nothing is new."""
    run = context.run
    run.unit = task.unit
    run.reads(*task.reads)
    task.ask(context)
    task.tell(context)
    run.wrote(*task.writes)


def replay(context: Context, task: Task, reasons: Sequence[str] = ()) -> None:
    """Ask again what lies in quarantine for the task's model, for any of `reasons` (none: for all),
    and tell what came of it.

    What is answered now gets its row; what fails again lies in quarantine anew. Either way its
    older row names this run in `resolved_by`. Raises RunError when nothing lies there.
    """
    run = context.run
    run.unit = task.unit
    run.reads(*task.reads, "quarantine")
    task.ask_again(context, reasons)
    task.tell(context)
    run.wrote(*task.writes)
