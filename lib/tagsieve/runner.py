"""Runs the steps of a recipe, each with its line of the ledger; behind the CLI and `jobs/`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tagsieve.console import Console, duration
from tagsieve.engines.context import Context, Engines
from tagsieve.errors import RunError, UsageError
from tagsieve.evaluating.config import EvaluateConfig, EvaluateTagsConfig
from tagsieve.ingest.files import find_files
from tagsieve.judging.config import JudgeAnswersConfig, JudgePairsConfig, JudgeTagsConfig
from tagsieve.lake import Lake, absolute, check_scheme
from tagsieve.ledger import StepRun, new_run_id, record_step
from tagsieve.mixing.config import MixConfig
from tagsieve.recipe import Recipe, StepName
from tagsieve.selection.config import SelectConfig
from tagsieve.selection.sweeping import beginnings
from tagsieve.training.config import (
    DpoConfig,
    InstaggerConfig,
    ScorerConfig,
    SftConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from tagsieve.engines.vectors import Array
    from tagsieve.evaluating import TagSources
    from tagsieve.evaluating.step import Task as EvaluateTask
    from tagsieve.judging.step import Task
    from tagsieve.screening import QuestionEncoder
    from tagsieve.selection import Compared
    from tagsieve.training.sources import Source


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


def _cluster(context: Context, recipe: Recipe) -> None:
    from tagsieve.ontology import cluster

    cluster(context, _version(context, recipe), recipe.cluster, recipe.normalize.semantic)


def _evolve(context: Context, recipe: Recipe) -> None:
    from tagsieve.evolving import check_evolve, evolve

    evolve(context, check_evolve(recipe.evolve, recipe.ray))


def _embed(context: Context, recipe: Recipe) -> None:
    from tagsieve.embedding import embed

    embed(context, recipe.embed)


def _screen(context: Context, recipe: Recipe) -> None:
    from tagsieve.screening import check_screen, screen

    screen(context, check_screen(recipe.screen), _twin_order(recipe), _question_encoder(recipe))


def _score(context: Context, recipe: Recipe) -> None:
    from tagsieve.embedding import encoder_fingerprint
    from tagsieve.scoring import score

    encoder = encoder_fingerprint(recipe.embed) if recipe.score.by_neighbours else None
    score(context, recipe.score, _counted_version(context, recipe), encoder)


def _judge(context: Context, recipe: Recipe) -> None:
    from tagsieve.judging import judge

    judge(context, _judge_task(context, recipe))


def _judge_task(context: Context, recipe: Recipe) -> Task:
    from tagsieve.judging import PairSources, TagSources, task_of

    config = recipe.judge
    assert config is not None  # `check_before` has looked
    pairs = tags = None
    if isinstance(config, JudgePairsConfig):
        screening = _screening(context, recipe)
        pairs = PairSources(_clustering(context, recipe), recipe.targets, screening)
    if isinstance(config, JudgeTagsConfig):
        tags = TagSources(_version(context, recipe), partial(_vectors_of_tags, recipe, "judge"))
    return task_of(config, pairs, tags)


def _vectors_of_tags(recipe: Recipe, step: StepName, context: Context, tags: pa.Array) -> Array:
    from tagsieve.ontology import tag_vectors

    semantic, engines = recipe.normalize.semantic, context.engines
    return tag_vectors(context.lake, tags, semantic, engines, context.console, step)


def _clustering(context: Context, recipe: Recipe) -> str:
    """The clustering that the recipe's cluster settings made."""
    from tagsieve.ontology import clustering_name

    return clustering_name(_version(context, recipe), recipe.cluster, recipe.normalize.semantic)


def _compared(context: Context, recipe: Recipe) -> Compared:
    """The pairs that the recipe's judge was asked about."""
    from tagsieve.judging import pairing_name, pairs_asker
    from tagsieve.selection import Compared

    config = recipe.judge
    assert isinstance(config, JudgePairsConfig)
    clustering = _clustering(context, recipe)
    pairing, judge = pairing_name(config, clustering), pairs_asker(config).judge
    return Compared(clustering, pairing, config.rounds, judge)


def _select(
    context: Context,
    recipe: Recipe,
    config: SelectConfig,
    larger: tuple[str, StepRun] | None = None,
) -> None:
    from tagsieve.embedding import encoder_fingerprint
    from tagsieve.scoring import scorer_fingerprints, vector_set
    from tagsieve.selection import Sources, select

    there = {scorer.name for scorer in recipe.score.scorers}
    reads, words = config.reads, config.words
    named = config.scorers | (words & there)
    scorers = {}
    if named:
        vectors = None
        if recipe.score.by_neighbours:
            vectors = vector_set(context, encoder_fingerprint(recipe.embed))
        found = scorer_fingerprints(recipe.score, _counted_version(context, recipe), vectors)
        scorers = {name: found[name] for name in sorted(named)}
    sources = Sources(
        _version(context, recipe) if "tags" in reads | words else None,
        scorers,
        encoder_fingerprint(recipe.embed) if "embeddings" in reads else None,
        _screening(context, recipe),
        _compared(context, recipe) if "judgements" in reads else None,
    )
    select(context, config, sources, recipe.pools, recipe.targets, larger)


def _selections(recipe: Recipe) -> list[tuple[str, StepFunction]]:
    """The step select, a line of the ledger for each selection; one that is the beginning of
    another comes after it."""
    if not recipe.sweep:
        return [("select", lambda context, recipe: _select(context, recipe, recipe.select))]
    begin = beginnings(recipe.selections)
    runs: dict[str, StepRun] = {}

    def made(config: SelectConfig, context: Context, recipe: Recipe) -> None:
        of = begin.get(config.name)
        _select(context, recipe, config, (of, runs[of]) if of else None)
        runs[config.name] = context.run

    order = sorted(recipe.selections, key=lambda config: config.name in begin)
    return [(f"select {config.name}", partial(made, config)) for config in order]


def _mix(context: Context, recipe: Recipe) -> None:
    from tagsieve.mixing import mix
    from tagsieve.scoring import scorer_fingerprints

    config = _mix_config(recipe)
    version = _version(context, recipe) if "tags" in config.reads else None
    named = [scorer for scorer in recipe.score.scorers if scorer.name in config.tokens_by]
    lengths = scorer_fingerprints(recipe.score.model_copy(update={"scorers": named}))
    screening = _screening(context, recipe)
    mix(context, config, recipe.pools, version, sorted(lengths.values()), screening)


def _mix_config(recipe: Recipe) -> MixConfig:
    if recipe.mix is None:
        raise UsageError(
            "mix: missing; it has no default. Set at least mix.each, as in conf/recipes/mixing.yaml"
        )
    return recipe.mix


def _mixtures(recipe: Recipe) -> list[str]:
    """The mixtures that are the recipe's outcome; none where it is a selection."""
    return _mix_config(recipe).names(recipe.pools) if "mix" in recipe.steps else []


def _export(context: Context, recipe: Recipe) -> None:
    from tagsieve.reporting import export

    selections = [config.name for config in recipe.selections]
    export(context, recipe.export, selections, resolved(recipe), _mixtures(recipe))


def _train(context: Context, recipe: Recipe) -> None:
    from tagsieve.training import train

    config = recipe.train
    assert config is not None  # `check_before` has looked
    train(context, config, _training_source(recipe, config), resolved(recipe))


def _training_source(recipe: Recipe, config: TrainConfig) -> Source:
    """What the recipe trains on."""
    from tagsieve.judging import preferences
    from tagsieve.tagging import tagger_fingerprint
    from tagsieve.training import sources

    match config:
        case SftConfig():
            if config.selection is None and (config.mixture or recipe.mix is not None):
                mixture = config.mixture or _mix_config(recipe).names(recipe.pools)[0]
                return sources.conversations(mixture, True)
            return sources.conversations(config.selection or recipe.select.name, False)
        case InstaggerConfig(tags_file=str() as path):
            return sources.tags_file(path)
        case InstaggerConfig():
            names = partial(_tag_names, recipe) if config.tags == "normalised" else None
            return sources.tags_of(tagger_fingerprint(recipe.tag), names)
        case ScorerConfig():
            evolved = recipe.evolve
            return sources.scorer_examples(
                config.examples or f"{evolved.path}/{evolved.name}.parquet"  # type: ignore[union-attr]
            )
        case DpoConfig(pairs=str() as path):
            return sources.preference_file(path)
    assert isinstance(recipe.judge, JudgeAnswersConfig)
    return sources.preferences(partial(preferences, config=recipe.judge))


def _tag_names(recipe: Recipe, context: Context) -> DataFrame:
    """The names of raw tags in the recipe's ontology version."""
    from tagsieve.ontology import names_of

    return names_of(context, _version(context, recipe))


def _evaluate(context: Context, recipe: Recipe) -> None:
    from tagsieve.evaluating import evaluate

    evaluate(context, _evaluate_task(recipe))


def _evaluate_task(recipe: Recipe) -> EvaluateTask:
    from tagsieve.evaluating import task_of

    config = recipe.evaluate
    tags = _measured(recipe, config) if isinstance(config, EvaluateTagsConfig) else None
    return task_of(config, tags)


def _measured(recipe: Recipe, config: EvaluateTagsConfig) -> TagSources:
    """What the other steps know and do, for measuring a tagger."""
    from tagsieve import tagging
    from tagsieve.evaluating import TagSources

    engine, setting = config.engine, "evaluate.engine"
    trained: dict[str, Any] = {}
    if isinstance(recipe.train, InstaggerConfig):
        trained = {"share": recipe.train.eval_share, "seed": recipe.train.seed}

    def ask(context: Context, queries: DataFrame) -> None:
        tagging.tag_queries(context, engine, queries, setting)

    def ask_again(context: Context, queries: DataFrame, reasons: Sequence[str]) -> None:
        tagging.replay_queries(context, engine, queries, reasons, setting)

    return TagSources(
        teacher=config.tags_file or tagging.tagger_fingerprint(recipe.tag),
        tagger=tagging.tagger_fingerprint(engine),
        ask=ask,
        ask_again=ask_again,
        names=partial(_tag_names, recipe),
        vectors=partial(_vectors_of_tags, recipe, "evaluate"),
        **trained,
    )


def _check_evaluate(recipe: Recipe, steps: Sequence[StepName]) -> None:
    """As `check_before`, of the step evaluate; of a model that the step train makes before it, only
    what can be seen without it."""
    config = recipe.evaluate
    if config is not None and "train" in steps and _is_trained(recipe, config):
        return
    _evaluate_task(recipe).check(recipe.ray)
    if isinstance(config, EvaluateTagsConfig):
        from tagsieve.ontology.semantic import encoder_folder
        from tagsieve.tagging import check_tagger

        check_tagger(config.engine, recipe.ray, "evaluate.engine")
        encoder_folder(recipe.normalize.semantic)


def _is_trained(recipe: Recipe, config: EvaluateConfig) -> bool:
    """Whether what is evaluated is what the recipe trains."""
    model, made = getattr(config.engine, "model", None), recipe.train
    if model is None or made is None:
        return False
    return absolute(model) == absolute(f"{made.path}/{made.name}")


def _report(context: Context, recipe: Recipe) -> None:
    from tagsieve.reporting import report

    version = _version(context, recipe) if "normalize" in recipe.steps else None
    settings = (recipe.report, recipe.export, recipe.selections[-1].name)
    report(context, *settings, version, _mixtures(recipe))


def _version(context: Context, recipe: Recipe) -> str:
    """The ontology version that this recipe's tag and normalize settings made."""
    from tagsieve.ontology import find_version
    from tagsieve.tagging import tagger_fingerprint

    return find_version(context.lake, tagger_fingerprint(recipe.tag), recipe.normalize)


def _screening(context: Context, recipe: Recipe) -> str | None:
    """The screening whose finds a selection leaves out, None where the recipe has none."""
    if recipe.screen is None:
        return None
    from tagsieve.screening import find_screening

    encoder = _question_encoder(recipe)
    return find_screening(context.lake, recipe.screen, _twin_order(recipe), encoder)


def _twin_order(recipe: Recipe) -> list[str]:
    """The pools in the order in which they keep a text: what can be chosen before a target."""
    return [*recipe.pools, *recipe.targets]


def _question_encoder(recipe: Recipe) -> QuestionEncoder | None:
    """The recipe's encoder, where questions are looked for by vectors."""
    if recipe.screen is None or recipe.screen.embedding is None:
        return None
    from tagsieve.embedding import encode_texts, encoder_fingerprint
    from tagsieve.screening import QuestionEncoder

    return QuestionEncoder(encoder_fingerprint(recipe.embed), partial(encode_texts, recipe.embed))


def _counted_version(context: Context, recipe: Recipe) -> str | None:
    """The ontology version whose tags the recipe's scorers count, None where none does."""
    counts = any(scorer.kind == "tags" for scorer in recipe.score.scorers)
    return _version(context, recipe) if counts else None


_SECRET = re.compile(r"secret|key|token|password", re.IGNORECASE)


def resolved(recipe: Recipe) -> str:
    """The recipe as it is stored and put on cards, in JSON: values of `spark.conf` that look like
    secrets by their names are hidden."""
    conf = recipe.spark.conf
    shown = {name: "***" if _SECRET.search(name) else conf[name] for name in conf}
    spark = recipe.spark.model_copy(update={"conf": shown})
    return recipe.model_copy(update={"spark": spark}).model_dump_json()


StepFunction = Callable[[Context, Recipe], None]

STEP_FUNCTIONS: dict[StepName, StepFunction] = {
    "ingest": _ingest,
    "tag": _tag,
    "normalize": _normalize,
    "analyze": _analyze,
    "cluster": _cluster,
    "evolve": _evolve,
    "embed": _embed,
    "screen": _screen,
    "score": _score,
    "judge": _judge,
    "mix": _mix,
    "export": _export,
    "train": _train,
    "evaluate": _evaluate,
    "report": _report,
}


def check_before(recipe: Recipe, steps: Sequence[StepName]) -> None:
    """Refuse what can be seen to fail before anything is written and an engine starts.

    Raises UsageError for inputs, banks and models that are not there and for a missing extra,
    RunError for a place that cannot be written.
    """
    from tagsieve.embedding import encoder_fingerprint
    from tagsieve.ingest.containers import need_datasets
    from tagsieve.tagging import check_tagger, tagger_fingerprint

    if "ingest" in steps:
        for source in recipe.inputs:
            if source.path is not None:
                find_files(source)
            else:
                need_datasets()
    if "tag" in steps:
        tagger_fingerprint(recipe.tag)
        check_tagger(recipe.tag, recipe.ray)
    if "cluster" in steps:
        from tagsieve.ontology.semantic import encoder_folder

        encoder_folder(recipe.normalize.semantic)
    if "evolve" in steps:
        from tagsieve.evolving import check_evolve

        check_evolve(recipe.evolve, recipe.ray)
    if "embed" in steps:
        encoder_fingerprint(recipe.embed)
    if "screen" in steps:
        from tagsieve.screening import check_screen

        check_screen(recipe.screen)
    if "score" in steps:
        from tagsieve.scoring import check_scorers

        check_scorers(recipe.score, recipe.ray)
    if "judge" in steps:
        from tagsieve.judging import check_judge

        check_judge(recipe.judge, recipe.ray)
    if "mix" in steps:
        _mix_config(recipe)
    if "train" in steps:
        from tagsieve.training import check_train

        check_train(recipe.train, recipe.ray)
    if "evaluate" in steps:
        _check_evaluate(recipe, steps)
    for setting, place in _outputs(recipe, steps):
        check_scheme(setting, place)
        _check_writable(setting, place)


_WRITING = {"evolve", "judge", "export", "train", "evaluate", "report"}
"""Steps that write files of their own. A judge of pairs writes none, a report has a default."""


def _outputs(recipe: Recipe, steps: Sequence[StepName]) -> Iterator[tuple[str, str]]:
    """Where the steps write: settings and what they are set to."""
    yield "lake", recipe.lake
    for step in steps:
        path = getattr(getattr(recipe, step), "path", None) if step in _WRITING else None
        if path is not None:
            yield f"{step}.path", path


def _check_writable(setting: str, place: str) -> None:
    """Raise RunError for a local folder that is not there and cannot be made, or not written to."""
    if urlsplit(place).scheme:
        return
    path = Path(place).expanduser().absolute()
    folder = path.parent if setting == "report.path" else path
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    if not nearest.is_dir():
        raise RunError(f"{setting}={place}: cannot be written: {nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"{setting}={place}: cannot be written: no permission in {nearest}")


_OVER_SAMPLES = {"tag", "evolve", "embed", "screen", "score", "select", "mix"}
"""Steps that would have nothing to do without samples; the others name what they lack."""


def _check_samples(recipe: Recipe, steps: Sequence[StepName]) -> None:
    """Raise RunError where a step reads samples, and none were ever ingested into this lake."""
    reading = [step for step in steps if step in _OVER_SAMPLES]
    if not reading or "ingest" in steps:
        return
    lake = Lake(recipe.lake)
    if lake.version("samples") is None:
        raise RunError(
            f"lake {lake.root} has no table samples, which {reading[0]} reads; run the step "
            "ingest first, or set lake to where it has run"
        )


def _warn(recipe: Recipe, steps: Sequence[StepName], console: Console) -> None:
    """Say what works here and is hardly meant: a model on the CPU of a machine with GPUs."""
    from tagsieve.engines.llm.asking import asks_vllm, idle_gpus
    from tagsieve.engines.ray import is_embedded

    asking = [step for step in steps if asks_vllm(getattr(recipe, step, None))]
    told = idle_gpus() if asking and is_embedded(recipe.ray) else None
    if told:
        console.line(f"{', '.join(asking)}: {told}", style="yellow")


def run_steps(
    recipe: Recipe,
    steps: Sequence[StepName],
    console: Console,
    engines: Engines,
    limit: int | None = None,
) -> str:
    """Run `steps` in order as one run; gives its id.

    The engines start on first use; closing them is the caller's. A step that fails is recorded as
    failed and ends the run; what it had committed stays.
    """
    check_before(recipe, steps)
    _check_samples(recipe, steps)
    _warn(recipe, steps, console)
    functions: list[tuple[str, StepFunction]] = []
    for step in steps:
        functions += _selections(recipe) if step == "select" else [(step, STEP_FUNCTIONS[step])]
    return _run(recipe, functions, console, engines, limit)


def run_replay(
    recipe: Recipe,
    step: StepName,
    reasons: Sequence[str],
    console: Console,
    engines: Engines,
    limit: int | None = None,
) -> str:
    """Try again what the recipe's tagger (`step` tag), generator and judge (evolve), encoder
    (embed), scorers (score), judges (judge) or evaluated model (evaluate) have in quarantine, for
    any of `reasons` (none: for all), as a run of its own; gives its id."""

    def again(context: Context, recipe: Recipe) -> None:
        from tagsieve import embedding, evaluating, evolving, judging, scoring, tagging

        if step == "evolve":
            config = evolving.check_evolve(recipe.evolve, recipe.ray)
            evolving.replay(context, config, reasons)
        elif step == "embed":
            embedding.replay(context, recipe.embed, reasons)
        elif step == "score":
            scoring.replay(context, recipe.score, reasons)
        elif step == "judge":
            judging.replay(context, _judge_task(context, recipe), reasons)
        elif step == "evaluate":
            evaluating.replay(context, _evaluate_task(recipe), reasons)
        else:
            tagging.replay(context, recipe.tag, reasons)

    check_before(recipe, [step])
    _warn(recipe, [step], console)
    return _run(recipe, [("replay", again)], console, engines, limit)


def _run(
    recipe: Recipe,
    functions: Sequence[tuple[str, StepFunction]],
    console: Console,
    engines: Engines,
    limit: int | None,
) -> str:
    lake = Lake(recipe.lake)
    run_id = new_run_id()
    told = resolved(recipe)
    console.line(f"run {run_id} in lake {lake.root}")
    with lake.working(run_id):
        for step, function in functions:
            with record_step(lake, run_id, step, told) as run:
                function(Context(lake, engines, run, console, limit), recipe)
            console.line(summary(run))
    return run_id


def show_outcome(recipe: Recipe, console: Console) -> None:
    """Print the funnel, the ledger, and where the outputs lie."""
    from tagsieve.reporting.html import funnels, latest_steps

    lake = Lake(recipe.lake)
    rows, tags = funnels(lake)
    console.line()
    if rows:
        # Of a recipe without tags, rows only.
        titles = ["rows", "", "tags", " "] if tags else ["rows", ""]
        cells = _side_by_side(rows, tags)
        console.table("funnel", titles, [row[: len(titles)] for row in cells])
    console.table(
        "ledger: input = kept + known + rejected + quarantined",
        ["step", "unit", "input", "kept", "known", "rejected", "quarantined", "time", "peak MB"],
        [
            [row["step"], row["unit"], row["input"], row["kept"], row["known"],
             row["rejected_total"], row["quarantined_total"],
             duration(row["metrics"]["seconds"]), int(row["metrics"]["peak_memory_mb"])]
            for row in latest_steps(lake)
        ],
    )  # fmt: skip
    console.line(f"tables   {lake.root}")
    if "export" in recipe.steps:
        console.line(f"outputs  {absolute(recipe.export.path)}")
    if "report" in recipe.steps:
        path = recipe.report.path or f"{recipe.export.path}/report.html"
        console.line(f"report   {absolute(path)}")


def _side_by_side(
    left: Sequence[tuple[str, int]], right: Sequence[tuple[str, int]]
) -> list[list[str]]:
    cells = zip_longest(left, right, fillvalue=("", None))
    return [
        [name, "" if n is None else f"{n:,}", other, "" if m is None else f"{m:,}"]
        for (name, n), (other, m) in cells
    ]


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
