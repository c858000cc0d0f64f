"""What a run would do, before anything runs: rows, model calls and time. Starts no engine."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from tagsieve.console import Console, duration
from tagsieve.embedding.cost import embed_cost
from tagsieve.errors import UsageError
from tagsieve.evaluating.config import (
    TRAINED_SHARE,
    EvaluateAnswersConfig,
)
from tagsieve.evolving.config import EvolveConfig
from tagsieve.ingest.config import Input
from tagsieve.ingest.files import SourceFile, find_files
from tagsieve.judging.config import (
    JudgeConfig,
    JudgePairsConfig,
    JudgeSkillsConfig,
    JudgeTagsConfig,
)
from tagsieve.lake import Lake
from tagsieve.mixing.amounts import asks
from tagsieve.mixing.config import ProportionsConfig
from tagsieve.recipe import Recipe, StepName
from tagsieve.reporting.html import latest_steps
from tagsieve.screening.config import ScreenConfig
from tagsieve.tagging.cost import tag_cost
from tagsieve.test_sets.reading import read_questions
from tagsieve.training.config import InstaggerConfig, SftConfig

_SAMPLE_BYTES = 1 << 20

TYPICAL_RATES: dict[StepName, float] = {
    "ingest": 2_000,
    "tag": 120,
    "normalize": 8_000,
    "analyze": 15_000,
    "cluster": 8_000,
    "evolve": 1,
    "screen": 2_000,
    "score": 8_000,
    "judge": 10,
    "select": 14_000,
    "mix": 14_000,
    "export": 3_000,
    "train": 1,
    "evaluate": 10,
    "report": 0.25,
}
"""Inputs per second on two cores, used until the lake has a run of its own to go by."""

START_SECONDS = 10
"""Starting the engines, once a run."""


@dataclass(frozen=True)
class PlannedStep:
    """One line of the plan; `rows` is exact only where it is counted in a table."""

    step: StepName
    rows: int
    unit: str
    what: str
    seconds: float | None


def plan(recipe: Recipe, steps: Sequence[StepName]) -> list[PlannedStep]:
    """The steps with their estimated input. Raises UsageError for inputs that are not there."""
    lake = Lake(recipe.lake)
    earlier = {row["step"]: row for row in latest_steps(lake)}
    samples = _count(lake, "samples")
    reads = _estimated_rows(recipe.inputs) if "ingest" in steps else 0
    new = max(reads - (earlier["ingest"]["input"] if "ingest" in earlier else 0), 0)
    rows = samples + new if "ingest" in steps else samples
    cost = tag_cost(lake, recipe.tag, new) if "tag" in steps else None
    vectors = embed_cost(lake, recipe.embed, rows) if "embed" in steps else None
    formats = ", ".join(recipe.export.formats)
    work: dict[StepName, tuple[int, str, str]] = {
        "ingest": (reads, "rows", f"{samples:,} samples in the lake; about {new:,} rows are new"),
        "tag": (cost.queries, "queries", cost.told) if cost else (0, "queries", ""),
        "normalize": (
            rows,
            "queries",
            f"{', '.join(recipe.normalize.steps)}; min_count {recipe.normalize.min_count}",
        ),
        "analyze": (rows, "samples", "diversity, complexity, recall"),
        "cluster": (rows, "samples", f"{recipe.cluster.clusters:,} groups of tags"),
        "evolve": _evolved(recipe.evolve, rows),
        "embed": (vectors.samples, "samples", vectors.told) if vectors else (0, "samples", ""),
        "screen": (rows, "samples", _screened(recipe.screen)),
        "score": (
            rows * len(recipe.score.scorers),
            "scores",
            f"{', '.join(scorer.name for scorer in recipe.score.scorers)}; of each turn"
            + _told_judges(rows * len(recipe.score.by_judge)),
        ),
        "judge": _judged(recipe.judge, rows),
        "select": (rows * len(recipe.selections), "samples", _selected(recipe, rows)),
        "mix": _mixed(recipe, rows),
        "export": (_exported(recipe, rows), "rows", f"{formats} in {recipe.export.path}"),
        "train": _trained(recipe, rows),
        "evaluate": _evaluated(recipe, rows),
        "report": (1, "file", recipe.report.path or f"{recipe.export.path}/report.html"),
    }  # fmt: skip
    planned = []
    for step in steps:
        count, unit, what = work[step]
        if step == "embed" and vectors:
            planned.append(PlannedStep(step, count, unit, what, vectors.seconds))
            continue
        rate = TYPICAL_RATES[step]
        # normalize is planned by queries, while its ledger counts tags.
        counted = earlier.get("tag" if step == "normalize" else step)
        if step in earlier and counted and counted["input"]:
            rate = counted["input"] / max(earlier[step]["metrics"]["seconds"], 0.1)
        seconds: float | None = count / rate
        if step == "tag" and cost and (cost.seconds is not None or recipe.tag.kind != "memory"):
            seconds = cost.seconds
        by_spark = len(recipe.score.relational) == len(recipe.score.scorers)
        if step == "score" and not by_spark and step not in earlier:
            seconds = None  # a model's time is known when it has run
        if step in ("evolve", "judge", "train", "evaluate") and step not in earlier:
            seconds = None
        planned.append(PlannedStep(step, count, unit, what, seconds))
    return planned


def _screened(config: ScreenConfig | None) -> str:
    if config is None:
        return "no section screen in the recipe"
    told = [f"questions of {', '.join(test_set.name for test_set in config.test_sets)}"]
    twins = ["near-duplicates"] if config.near_duplicates else []
    return "; ".join([*twins, *(told if config.test_sets else [])])


def _evolved(config: EvolveConfig | None, rows: int) -> tuple[int, str, str]:
    if config is None:
        return 0, "seeds", "no section evolve in the recipe"
    seeds = min(config.seeds, rows)
    calls = seeds * (config.rounds + 1)
    return seeds, "seeds", f"{config.what}, {config.rounds} rounds; at most {calls:,} calls"


def _judged(config: JudgeConfig | None, rows: int) -> tuple[int, str, str]:
    """At most so many judgements."""
    match config:
        case None:
            return 0, "judgements", "no section judge in the recipe"
        case JudgePairsConfig():
            told = f"pairs of a cluster in both orders, {config.rounds} a conversation"
            return rows * config.rounds, "judgements", told
        case JudgeTagsConfig():
            cases = 2 * (config.cases + config.controls)
            return cases, "judgements", "precision and consistency of tags"
    questions = read_questions(config.test_sets, "judge").num_rows
    models = ", ".join(config.answers)
    if isinstance(config, JudgeSkillsConfig):
        return questions * len(config.answers), "judgements", f"skills of {models}"
    count = 2 * questions * (len(config.answers) - 1) * len(config.judges)
    return count, "judgements", f"answers of {models} in both orders, by {', '.join(config.judges)}"


def _trained(recipe: Recipe, rows: int) -> tuple[int, str, str]:
    """At most so many rows."""
    config = recipe.train
    if config is None:
        return 0, "rows", "no section train in the recipe"
    count = _exported(recipe, rows) if isinstance(config, SftConfig) else rows
    if isinstance(config, InstaggerConfig) and config.tags_file is not None:
        count = _lines_of("train.tags_file", config.tags_file)
    amount = f"{config.steps:,} steps" if config.steps else f"{config.epochs:g} epochs"
    told = f"{config.task} of {config.model}, {amount} by {config.workers} workers"
    return count, "rows", f"{told}: {config.path}/{config.name}"


def _evaluated(recipe: Recipe, rows: int) -> tuple[int, str, str]:
    """At most so many answers."""
    config = recipe.evaluate
    match config:
        case None:
            return 0, "questions", "no section evaluate in the recipe"
        case EvaluateAnswersConfig():
            questions = read_questions(config.test_sets, "evaluate")
            names = ", ".join(test_set.name for test_set in config.test_sets)
            count = len(questions["text"].unique())
            return count, "questions", f"{config.name} answers {names}"
    file = config.tags_file
    told = f"{config.name} against {file or 'the tags of tag'}, on queries held out"
    known = rows if file is None else _lines_of("evaluate.tags_file", file)
    trained = getattr(recipe.train, "eval_share", TRAINED_SHARE)
    share = trained if config.share is None else config.share
    return round(known * share), "queries", told


def _lines_of(setting: str, path: str) -> int:
    import fsspec

    try:
        with fsspec.open(path, "rb", compression="infer") as lines:
            return sum(1 for line in lines if line.strip())
    except OSError as error:
        raise UsageError(f"{setting}={path}: cannot be read: {error}") from error


def _mixed(recipe: Recipe, rows: int) -> tuple[int, str, str]:
    config = recipe.mix
    if config is None:
        return 0, "samples", "no section mix in the recipe"
    names = config.names(recipe.pools)
    of = ", ".join(config.pools_of(recipe.pools))
    told = names[0] if len(names) == 1 else f"{len(names)} mixtures, {names[0]} to {names[-1]}"
    return rows, "samples", f"{config.strategy} of {of}: {told}"


def _sizes(recipe: Recipe, rows: int) -> list[int]:
    """Rows of each selection, at most."""
    return [rows if config.rows is None else config.rows for config in recipe.selections]


def _selected(recipe: Recipe, rows: int) -> str:
    told = ", ".join(dict.fromkeys(config.strategy for config in recipe.selections))
    sizes = _sizes(recipe, rows)
    if len(sizes) == 1:
        return f"{told}, {sizes[0]:,} rows"
    return f"{len(sizes)} selections of {min(sizes):,} to {max(sizes):,} rows: {told}"


def _exported(recipe: Recipe, rows: int) -> int:
    """Rows that are written; of mixtures in tokens, at most all."""
    config = recipe.mix
    if config is None or "mix" not in recipe.steps:
        return sum(_sizes(recipe, rows))
    if config.tokens_by:
        return rows
    if isinstance(config, ProportionsConfig):
        return config.size
    parts = list(config.pools_of(recipe.pools))
    return sum(ask.amount for ask in asks(config, parts, dict.fromkeys(parts, 1)))


def show_plan(recipe: Recipe, steps: Sequence[StepName]) -> None:
    """Print the plan."""
    console = Console()
    planned = plan(recipe, steps)
    console.table(
        f"plan for lake {Lake(recipe.lake).root}",
        ["step", "about", "", "what", "estimated time"],
        [
            [p.step, p.rows, p.unit, p.what, "-" if p.seconds is None else duration(p.seconds)]
            for p in planned
        ],
    )
    total = START_SECONDS + sum(p.seconds or 0.0 for p in planned)
    unknown = [p.step for p in planned if p.seconds is None]
    if unknown:
        console.line(f"without {', '.join(unknown)}, whose time nothing here tells yet:")
    console.line(
        f"about {duration(total)} with the engines' start, by this lake's earlier runs where it "
        "has any, else by a machine with two cores. Steps with nothing new take no time. "
        "Nothing was run."
    )


def _told_judges(calls: int) -> str:
    return f"; at most {calls:,} answers of judges for a turn each" if calls else ""


def _count(lake: Lake, name: str) -> int:
    table = lake.delta(name)
    return 0 if table is None else table.count()


def _estimated_rows(inputs: Sequence[Input]) -> int:
    return sum(
        _rows_of(file)
        for source in inputs
        if source.path is not None
        for file in find_files(source)
    )


def _rows_of(file: SourceFile) -> int:
    """Rows of a file: exact for Parquet and Delta, else by the first MiB."""
    import fsspec

    files, path = fsspec.core.url_to_fs(file.uri)
    if file.container == "delta":
        from deltalake import DeltaTable

        return int(DeltaTable(path).count())
    if file.container == "parquet":
        import pyarrow.parquet as pq

        with files.open(path, "rb") as stream:
            return int(pq.ParquetFile(stream).metadata.num_rows)
    with files.open(path, "rb") as stream:
        raw = stream.read(_SAMPLE_BYTES)
    text = zlib.decompressobj(31).decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    mark = b"\n" if file.container != "json" else b"}"
    return round(max(text.count(mark), 1) * max(file.size / max(len(raw), 1), 1.0))
