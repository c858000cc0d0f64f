"""The evolve step: seeds from `samples` in; `generations`, `judgements` and a training set out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pyspark.sql import DataFrame

from tagsieve.engines.actors import NOT_ASKED
from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import Writer
from tagsieve.engines.pending import OVER_BUDGET, do_rows, started
from tagsieve.errors import RunError
from tagsieve.evolving.config import EvolveConfig
from tagsieve.evolving.generator import generators_of
from tagsieve.evolving.judge import judges_of
from tagsieve.evolving.prompts import generator_fingerprint, judge_fingerprint, operators
from tagsieve.evolving.seeds import drawn_seeds, with_chains
from tagsieve.evolving.training_set import write_training_set
from tagsieve.evolving.work import Work
from tagsieve.lease import lease
from tagsieve.ledger import StepRun


def evolve(context: Context, config: EvolveConfig) -> None:
    """Evolve and score the drawn seeds that have no judgement yet and no part in quarantine, and
    write the training set of all that have one.

    Each round is one pass of all seeds, from the variants of the round before; then all variants
    of a seed are scored in one prompt. Spark finds what a pass lacks (an anti-join on ids) and
    hands it over as Parquet; Ray actors ask the model; the driver commits micro-batches, and holds
    one of them and the chunks at the actors at a time. An answer that cannot be used goes to
    quarantine, and its seed goes no further. One run at a time works for a generator, and one for
    a judge; RunError for the second.
    """
    run = context.run
    with _held(context, config) as work:
        todo = _stored(context, work.lacking())
        count, drawn = todo.count(), work.chains.count()
        run.known = drawn - count if context.limit is None else 0
        run.input = run.known + count
        run.metrics["seeds_short"] = float(max(config.seeds - drawn, 0))
        _work_off(context, config, work, todo, count)


def replay(context: Context, config: EvolveConfig, reasons: Sequence[str] = ()) -> None:
    """Go on with the drawn seeds that have a part in quarantine, for any of `reasons` (none: for
    all), and write the training set anew.

    The quarantine row of a part that is there now names this run in `resolved_by`, as does that of
    one that fails again and lies in quarantine anew. Raises RunError when nothing lies there.
    """
    run = context.run
    run.reads("quarantine")
    with _held(context, config) as work:
        waiting = work.chains.join(work.set_aside(reasons), "seed_id", "left_semi")
        todo = _stored(context, waiting)
        run.input = todo.count()
        if not run.input:
            known = work.set_aside().count()
            raise RunError(
                f"no seed of {work.generator} and {work.judge} lies in quarantine"
                + (f" for {', '.join(reasons)}; {known} do for other reasons" if known else "")
            )
        _work_off(context, config, work, todo, run.input)
        work.close(todo)


@contextmanager
def _held(context: Context, config: EvolveConfig) -> Iterator[Work]:
    """The step's work, with the leases of its generator and judge."""
    run, lake, spark = context.run, context.lake, context.engines.spark
    run.unit = "seed"
    run.reads("samples")
    generator, judge = generator_fingerprint(config), judge_fingerprint(config)
    names = operators(config)
    with (
        lease(lake, f"evolve-{generator}", run.run_id),
        lease(lake, f"rank-{judge}", run.run_id),
    ):
        writers = (
            Writer(lake, "generations", f"evolve {generator}"),
            Writer(lake, "judgements", f"rank {judge}"),
        )
        with context.console.spark_progress(spark, "evolve"):
            samples = context.pinned("samples")
            seeds = drawn_seeds(samples, config)
            chains = with_chains(seeds, config, generator, judge, names)
            work = Work(context, generator, judge, *writers, context.stored("chains", chains))
        yield work
    run.wrote("generations", "judgements", "quarantine")


def _stored(context: Context, chains: DataFrame) -> DataFrame:
    """At most the context's limit of chains, computed once."""
    if context.limit is not None:
        chains = chains.orderBy("seed_id").limit(context.limit)
    return context.stored("todo", chains)


def _work_off(
    context: Context, config: EvolveConfig, work: Work, todo: DataFrame, count: int
) -> None:
    """Evolve and score the `count` seeds of `todo`; then write the training set."""
    run = context.run
    run.metrics |= {"model_calls": 0.0, "variants": 0.0}
    if count:
        context.engines.ray()
        evolved = _evolve(context, config, work, todo)
        scored = _score(context, config, work, todo, evolved)
        if evolved.get(NOT_ASKED) or scored.get(NOT_ASKED):
            done = run.known + run.kept + run.quarantined.total()
            run.rejected[OVER_BUDGET] = run.input - done
    rows = write_training_set(context, work, config)
    run.metrics |= {"training_rows": float(rows), "training_seeds": rows / (config.rounds + 1)}


def _evolve(
    context: Context, config: EvolveConfig, work: Work, todo: DataFrame
) -> dict[str, float]:
    """All rounds, by the same actors; gives what they counted."""
    spec = generators_of(config, context.run.run_id, context.engines.ray_config)
    part = _part(context)
    try:
        with started(spec, part.run) as pool:
            for number in range(1, config.rounds + 1):
                pending = work.lacking_variants(todo, number)
                unit = f"variants of round {number}"
                do_rows(part, pool, config.generator, work.generations, pending, unit)
    finally:
        context.run.metrics["variants"] += part.run.kept
        _add(context.run, part.run)
    return pool.counted


def _score(
    context: Context,
    config: EvolveConfig,
    work: Work,
    todo: DataFrame,
    evolved: Mapping[str, float],
) -> dict[str, float]:
    """The scores of the seeds whose variants are all there; gives what the actors counted.
    `evolved`: what the generators did."""
    spec = judges_of(config, context.run.run_id, context.engines.ray_config)
    part = _part(context)
    # A judge that is the generator shares its budget.
    before = dict(evolved) if config.judge is None else {}
    try:
        with started(spec, part.run, before) as pool:
            pending = work.lacking_judgements(todo)
            do_rows(part, pool, config.ranker, work.judgements, pending, "groups")
    finally:
        context.run.kept += part.run.kept
        for name in before.keys() & part.run.metrics.keys():
            part.run.metrics[name] -= before[name]
        _add(context.run, part.run)
    return pool.counted


def _part(context: Context) -> Context:
    """The context of one kind of prompt, with a line of its own of the ledger: the step's own is in
    seeds."""
    run = context.run
    return replace(context, run=StepRun(context.lake, run.run_id, run.step))


def _add(run: StepRun, part: StepRun) -> None:
    """Add what a part counted, save its rows that were kept. A seed fails but once in a run, so its
    failures count seeds."""
    run.quarantined.update(part.quarantined)
    for name, value in part.metrics.items():
        if name != "rows_per_second":
            run.metrics[name] = run.metrics.get(name, 0.0) + value
