"""Runs the steps of a recipe, each with its line of the ledger; behind the CLI and `jobs/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tagsieve.console import Console, duration
from tagsieve.engines.context import Context, Engines
from tagsieve.errors import TagsieveError
from tagsieve.lake import Lake
from tagsieve.ledger import StepRun, new_run_id, record_step
from tagsieve.recipe import Recipe, StepName


def _ingest(context: Context, recipe: Recipe) -> None:
    from tagsieve.ingest import ingest

    ingest(context, recipe.inputs, recipe.ingest)


def _tag(context: Context, recipe: Recipe) -> None:
    from tagsieve.tagging import tag

    tag(context, recipe.tag)


def _normalize(context: Context, recipe: Recipe) -> None:
    from tagsieve.ontology import normalize
    from tagsieve.tagging import tagger_fingerprint

    normalize(context, tagger_fingerprint(recipe.tag), recipe.normalize)


def _analyze(context: Context, recipe: Recipe) -> None:
    from tagsieve.ontology import analyze

    analyze(context, _version(context, recipe), recipe.analyze)


def _select(context: Context, recipe: Recipe) -> None:
    from tagsieve.selection import select

    pools = list(dict.fromkeys(source.pool for source in recipe.inputs))
    select(context, recipe.select, _version(context, recipe), pools)


def _export(context: Context, recipe: Recipe) -> None:
    from tagsieve.reporting import export

    export(context, recipe.export, recipe.select.name, recipe.model_dump_json())


def _report(context: Context, recipe: Recipe) -> None:
    from tagsieve.reporting import report

    report(context, recipe.report, recipe.export, recipe.select.name, _version(context, recipe))


def _version(context: Context, recipe: Recipe) -> str:
    """The ontology version that this recipe's tag and normalize settings made."""
    from tagsieve.ontology import find_version
    from tagsieve.tagging import tagger_fingerprint

    return find_version(context.lake, tagger_fingerprint(recipe.tag), recipe.normalize)


STEP_FUNCTIONS: dict[StepName, Callable[[Context, Recipe], None]] = {
    "ingest": _ingest,
    "tag": _tag,
    "normalize": _normalize,
    "analyze": _analyze,
    "select": _select,
    "export": _export,
    "report": _report,
}


def run_steps(
    recipe: Recipe,
    steps: Sequence[StepName],
    console: Console,
    limit: int | None = None,
    engines: Engines | None = None,
) -> str:
    """Run `steps` in order as one run; gives its id.

    Engines start on first use and end with the run, unless given ones are passed in. A step that
    fails is recorded as failed and ends the run; what its commits finished stays.
    """
    lake = Lake(recipe.lake)
    run_id = new_run_id()
    resolved = recipe.model_dump_json()
    own = engines or Engines(recipe.spark, recipe.ray)
    console.line(f"run {run_id} in lake {lake.root}")
    try:
        for step in steps:
            with record_step(lake, run_id, step, resolved) as run:
                STEP_FUNCTIONS[step](Context(lake, own, run, console, limit), recipe)
            console.line(summary(run))
    except TagsieveError:
        console.line(f"{step} failed; `tagsieve status` shows what is done", style="red")
        raise
    finally:
        if engines is None:
            own.close()
    return run_id


def summary(run: StepRun) -> str:
    """One line of a finished step: the ledger equation in the step's unit, and the time."""
    parts = [f"{run.kept:,} kept"]
    if run.known:
        parts.append(f"{run.known:,} known")
    parts += [f"{count:,} {reason}" for reason, count in run.rejected.most_common()]
    parts += [f"{count:,} quarantined: {reason}" for reason, count in run.quarantined.most_common()]
    unit = run.unit if run.input == 1 else unit_plural(run.unit)
    seconds = duration(run.metrics["seconds"])
    return f"{run.step:<10} {run.input:>9,} {unit} = {' + '.join(parts)}   ({seconds})"


def unit_plural(unit: str) -> str:
    """`queries` for `query`."""
    return f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"
