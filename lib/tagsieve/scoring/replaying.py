"""Scoring again what lies in quarantine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import Writer
from tagsieve.engines.quarantine import quarantined, try_again
from tagsieve.errors import RunError
from tagsieve.lease import lease
from tagsieve.scoring.asking import ask_judge, ask_model
from tagsieve.scoring.config import ScoreConfig
from tagsieve.scoring.scorers import model_groups, scorer_fingerprints
from tagsieve.scoring.work import wanted

SCORE_ID = "score_id"
"""A column that names a score among those of one scorer: `sample_id` and `turn`."""


@dataclass(frozen=True)
class _Asker:
    """A scorer (its fingerprint) that asks; `work`: what runs that do it at the same time share;
    `ask(context, writer=, lacking=)` has scores computed and gives their number."""

    scorer: str
    work: str
    ask: Callable[..., int]


def replay(context: Context, config: ScoreConfig, reasons: Sequence[str] = ()) -> None:
    """Ask again about the turns that lie in quarantine for the recipe's scorers, for any of
    `reasons` (none: for all); one scorer after the other, of those that ask a model or a judge.
    What asks neither would fail again.

    A turn that has a score now gets its row in `scores`; what fails again lies in quarantine anew.
    Either way its older quarantine row names this run in `resolved_by`. Raises RunError when
    nothing lies there.
    """
    run = context.run
    run.unit = "score"
    run.reads("samples", "quarantine")
    waiting = [
        asker
        for asker in _askers(config)
        if not quarantined(context, asker.scorer, SCORE_ID, reasons).isEmpty()
    ]
    if not waiting:
        told = f" for {', '.join(reasons)}" if reasons else ""
        raise RunError(
            f"nothing of score.scorers that asks a model or a judge lies in quarantine{told}"
        )
    for asker in waiting:
        _again(context, asker, reasons)
    run.wrote("scores", "quarantine")


def _askers(config: ScoreConfig) -> list[_Asker]:
    """The scorers that ask a model or a judge."""
    asking = config.model_copy(update={"scorers": config.by_model + config.by_judge})
    fingerprints = scorer_fingerprints(asking)
    models = [
        _Asker(
            scorer,
            group.name,
            partial(ask_model, config=config, group=replace(group, scorers={scorer: told})),
        )
        for group in model_groups(config, fingerprints)
        for scorer, told in group.scorers.items()
    ]
    judges = {fingerprints[judge.name]: judge for judge in config.by_judge}
    return models + [
        _Asker(scorer, scorer, partial(ask_judge, config=judge, scorer=scorer))
        for scorer, judge in judges.items()
    ]


def _again(context: Context, asker: _Asker, reasons: Sequence[str]) -> None:
    """Ask again for one scorer."""
    lake = context.lake
    name = F.concat_ws(" ", "sample_id", F.col("turn").cast("string")).alias(SCORE_ID)
    with lease(lake, f"score-{asker.work}", context.run.run_id), context.part() as one:
        writer = Writer(lake, "scores", f"score {asker.work}")

        def done() -> DataFrame:
            scores = lake.read(context.engines.spark, "scores")
            return scores.where(F.col("scorer") == asker.scorer).select(name)

        def ask(rows: DataFrame) -> int:
            if context.limit is not None:
                rows = rows.orderBy(SCORE_ID).limit(context.limit)
            return asker.ask(one, writer=writer, lacking=rows)

        rows = wanted(one, [asker.scorer]).select("*", name)
        try_again(one, asker.scorer, SCORE_ID, rows, done, ask, reasons)
