"""The judge step: conversations in pairs, models' answers, tags or skills in; `judgements` out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tagsieve.engines.config import RayConfig
from tagsieve.engines.context import Context
from tagsieve.engines.pending import OVER_BUDGET
from tagsieve.engines.quarantine import quarantined
from tagsieve.errors import RunError, UsageError
from tagsieve.judging.answers import AnswersTask
from tagsieve.judging.asking import Asker
from tagsieve.judging.config import (
    JudgeAnswersConfig,
    JudgeConfig,
    JudgePairsConfig,
    JudgeSkillsConfig,
    JudgeTagsConfig,
)
from tagsieve.judging.pairs import PairSources, PairsTask, pairs_asker
from tagsieve.judging.skills import SkillsTask
from tagsieve.judging.tags import TagSources, TagsTask, tag_askers
from tagsieve.judging.work import JUDGEMENT_ID, Wanted, ask, ask_again


class Task(Protocol):
    """What is judged, and what comes of it."""

    @property
    def askers(self) -> list[Asker]:
        """The judges."""

    @property
    def reads(self) -> Sequence[str]:
        """The tables that say what is judged."""

    @property
    def identity(self) -> list[Any] | None:
        """What decides the judgements, beside the tables; None where the task always tells what
        came of them, also when nothing is new."""

    def wanted(self, context: Context) -> list[Wanted]:
        """The judgements that there are to be."""

    def tell(self, context: Context) -> None:
        """Show, and write, what the judgements say; after `wanted`."""


def task_of(
    config: JudgeConfig, pairs: PairSources | None = None, tags: TagSources | None = None
) -> Task:
    """The task of a config; `pairs` and `tags`: what these tasks need of other steps.

    Raises UsageError where a prompt or a file cannot be used.
    """
    match config:
        case JudgePairsConfig():
            assert pairs is not None
            return PairsTask(config, pairs)
        case JudgeAnswersConfig():
            return AnswersTask(config)
        case JudgeTagsConfig():
            assert tags is not None
            return TagsTask(config, tags)
        case JudgeSkillsConfig():
            return SkillsTask(config)


def check_judge(config: JudgeConfig | None, ray_config: RayConfig) -> JudgeConfig:
    """The config, after refusing what can be seen to fail. Raises UsageError."""
    match config:
        case None:
            raise UsageError(
                "judge: missing; it has no default. Set judge.task and what it needs, as in "
                "conf/recipes/tacos.yaml"
            )
        case JudgePairsConfig():
            askers = [pairs_asker(config)]
        case JudgeTagsConfig():
            askers = list(tag_askers(config).values())
        case _:
            askers = task_of(config).askers
    for asker in askers:
        asker.check(ray_config)
    return config


def judge(context: Context, task: Task) -> None:
    """Have everything judged that the task asks for and that has no judgement yet, here or in
    quarantine, and tell what came of it.

    What a judge wrote is kept in `judgements`; an answer that cannot be read goes to quarantine.
    """
    run = context.run
    run.unit = "judgement"
    run.reads(*task.reads)
    if task.identity is not None and run.done_before(*task.identity, context.limit):
        return
    for wanted in task.wanted(context):
        ask(context, wanted)
    task.tell(context)
    if run.rejected[OVER_BUDGET]:
        run.fingerprint = None  # not done: the next run goes on
    run.wrote("judgements", "quarantine")


def replay(context: Context, task: Task, reasons: Sequence[str] = ()) -> None:
    """Ask again about what lies in quarantine for the task's judges, for any of `reasons` (none:
    for all), and tell what came of it.

    What has a judgement now gets its row in `judgements`; what fails again lies in quarantine anew.
    Either way its older row names this run in `resolved_by`. Raises RunError when nothing lies
    there.
    """
    run = context.run
    run.unit = "judgement"
    run.reads(*task.reads, "quarantine")
    waiting = [
        asker.judge
        for asker in task.askers
        if not quarantined(context, asker.judge, JUDGEMENT_ID, reasons).isEmpty()
    ]
    if not waiting:
        told = f" for {', '.join(reasons)}" if reasons else ""
        judges = ", ".join(asker.judge for asker in task.askers)
        raise RunError(f"nothing of {judges} lies in quarantine{told}")
    for wanted in task.wanted(context):
        if wanted.asker.judge in waiting:
            with context.part() as part:
                ask_again(part, wanted, reasons)
    task.tell(context)
    run.wrote("judgements", "quarantine")
