"""The command line. Imports nothing heavy until a command needs it."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import tagsieve
from tagsieve.errors import TagsieveError, UsageError

if TYPE_CHECKING:
    from tagsieve.engines.context import Engines
    from tagsieve.lake import Lake
    from tagsieve.recipe import Recipe, StepName

_STEP_HELP = {
    "ingest": "Read files into samples; refused rows go to rejects.",
    "tag": "Give every distinct query its tags.",
    "normalize": "Turn raw tags into an ontology version.",
    "analyze": "Diversity, complexity and recall of the pools.",
    "cluster": "Group tags by k-means, and conversations by their tags (TACOS).",
    "evolve": "Make a scorer's training set: evolve seeds, score their variants.",
    "embed": "Give every conversation its vector.",
    "screen": "Find near-duplicates, and questions of test sets.",
    "score": "Score every turn: DEITA, IFD, perplexity, lengths and others.",
    "judge": "Compare and grade: pairs of conversations, models' answers, tags, skills.",
    "select": "Choose a training set.",
    "mix": "Mix pools in given proportions; studies of mixtures.",
    "export": "Write the selection, or the mixtures, as training files.",
    "train": "Train a model: on a selection, on tags, a scorer, on preferences.",
    "evaluate": "Answer test sets with a model, or measure a tagger by its teacher.",
    "report": "Write the HTML report.",
}


class _Group(click.Group):
    """Turns errors into messages and exit codes: 2 for usage and recipe, 1 for a failed run."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TagsieveError as error:
            if _verbose(ctx):
                traceback.print_exc()
            click.echo("\n".join([f"error: {error}", *_notes(error)]), err=True)
            ctx.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if _verbose(ctx):
                raise
            first = str(error).strip().splitlines()[:1] or [""]
            lines = [
                f"error: unexpected {type(error).__name__}: {first[0][:500]}",
                *_notes(error),
                "The same command with -v before its name shows the traceback and all logs.",
            ]
            click.echo("\n".join(lines), err=True)
            ctx.exit(1)


def _notes(error: Exception) -> list[str]:
    """What else went wrong after an error."""
    return [note.split("\n", 1)[0][:500] for note in getattr(error, "__notes__", ())]


def _verbose(ctx: click.Context) -> bool:
    return bool(ctx.params.get("verbose"))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tagsieve.__version__, prog_name="tagsieve")
@click.option("-v", "--verbose", is_flag=True, help="Show the engines' logs, and tracebacks.")
def main(verbose: bool) -> None:
    """Tag, normalise, score, select and mix supervised fine-tuning data at any size."""


_LAKE_OPTION = click.option(
    "--lake",
    envvar="TAGSIEVE_LAKE",
    help="The lake; default: TAGSIEVE_LAKE, or the one in lakes/; of several, the last used.",
)


@contextmanager
def _engines(ctx: click.Context, recipe: Recipe, ray_beside_spark: bool) -> Iterator[Engines]:
    """The engines of a recipe, closed on every path."""
    from tagsieve.engines.context import Engines

    verbose = _verbose(ctx.find_root())
    with closing(Engines(recipe.spark, recipe.ray, verbose, ray_beside_spark)) as engines:
        yield engines


def _recipe_command(name: str, help_text: str, steps: tuple[StepName, ...] | None) -> None:
    @main.command(name, help=help_text)
    @click.argument("recipe")
    @click.argument("overrides", nargs=-1, metavar="[key=value ...]")
    @click.option(
        "--dry-run", is_flag=True, help="Show the plan with counts and cost; run nothing."
    )
    @click.option("--limit", type=click.IntRange(min=1), help="Try only N rows.")
    @click.pass_context
    def command(
        ctx: click.Context,
        recipe: str,
        overrides: tuple[str, ...],
        dry_run: bool,
        limit: int | None,
    ) -> None:
        from tagsieve.recipe import load_recipe

        loaded = load_recipe(recipe, overrides)
        chosen = steps or loaded.steps
        if dry_run:
            from tagsieve.plan import show_plan

            show_plan(loaded, chosen)
            return
        from tagsieve.console import Console
        from tagsieve.runner import run_steps, show_outcome

        console = Console()
        by_ray = {"tag", "evolve", "embed", "judge", "train", "evaluate"}
        if "semantic" in loaded.normalize.steps:
            by_ray.add("normalize")
        if loaded.score.by_model:
            by_ray.add("score")
        if loaded.screen is not None and loaded.screen.embedding is not None:
            by_ray.add("screen")
        with _engines(ctx, loaded, not by_ray.isdisjoint(chosen)) as engines:
            run_steps(loaded, chosen, console, engines, limit)
        if steps is None:
            show_outcome(loaded, console)


_recipe_command("run", "Run the steps of a recipe, in order.", None)
for _step, _help in _STEP_HELP.items():
    _recipe_command(_step, _help, (_step,))  # type: ignore[arg-type]


@main.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[key=value ...]")
def describe(recipe: str, overrides: tuple[str, ...]) -> None:
    """Show what `run` would do: rows, model calls, time. Starts no engine."""
    from tagsieve.plan import show_plan
    from tagsieve.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    show_plan(loaded, loaded.steps)


@main.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[key=value ...]")
@click.option(
    "--step",
    type=click.Choice(["tag", "evolve", "embed", "score", "judge", "evaluate"]),
    default="tag",
    show_default=True,
    help="Whose quarantine.",
)
@click.option("--reason", "reasons", multiple=True, help="Only rows with this reason; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), help="Try only N rows.")
@click.pass_context
def replay(
    ctx: click.Context,
    recipe: str,
    overrides: tuple[str, ...],
    step: StepName,
    reasons: tuple[str, ...],
    limit: int | None,
) -> None:
    """Try again what a step of the recipe has in quarantine."""
    from tagsieve.console import Console
    from tagsieve.recipe import load_recipe
    from tagsieve.runner import run_replay

    loaded = load_recipe(recipe, overrides)
    with _engines(ctx, loaded, ray_beside_spark=True) as engines:
        run_replay(loaded, step, reasons, Console(), engines, limit)


@main.command()
@_LAKE_OPTION
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many runs to show.",
)
def status(lake: str | None, runs: int) -> None:
    """Runs, steps and their ledger; tables and their versions."""
    from tagsieve.console import Console
    from tagsieve.inspecting import show_status

    show_status(_open_lake(lake), Console(), runs)


@main.command()
@click.argument("table")
@click.argument("name", required=False)
@_LAKE_OPTION
@click.option("--where", help="An SQL condition on the table's columns.")
@click.option("--order", help="An SQL order of rows, such as 'lift DESC'; default: as they lie.")
@click.option("--columns", help="Comma-separated columns; default: all.")
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="How many rows to show.",
)
@click.option("--version", help="Ontology version of a tag; default: the newest.")
def inspect(
    table: str,
    name: str | None,
    lake: str | None,
    where: str | None,
    order: str | None,
    columns: str | None,
    rows: int,
    version: str | None,
) -> None:
    """Show a table: where it lies, its version, schema and a few rows; or, with `tag NAME`, what
    became of a raw tag."""
    from tagsieve.console import Console
    from tagsieve.inspecting import show_table, show_tag

    if table == "tag":
        if name is None:
            raise UsageError("inspect tag: name the tag, as in inspect tag information_retrieval")
        show_tag(_open_lake(lake), name, Console(), version)
    elif name is not None:
        raise UsageError(f"inspect {table}: only `inspect tag` takes a name; rows by --where")
    else:
        show_table(_open_lake(lake), table, Console(), where, columns, rows, order)


@main.command()
@click.argument("old")
@click.argument("new")
@_LAKE_OPTION
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many tags of each kind to show.",
)
def diff(old: str, new: str, lake: str | None, rows: int) -> None:
    """Show what became of tags from one ontology version to another."""
    from tagsieve.console import Console
    from tagsieve.inspecting import show_changes

    show_changes(_open_lake(lake), old, new, Console(), rows)


@main.command()
@click.argument("selections", nargs=-1, required=True, metavar="SELECTION ...")
@_LAKE_OPTION
@click.option(
    "--out",
    default="out/compare.html",
    show_default=True,
    help="The page; its figures lie beside it as JSON.",
)
@click.option(
    "--diversity-rows",
    type=click.IntRange(min=0),
    default=100_000,
    show_default=True,
    help="Of larger selections, measure the diversity by so many rows; 0: of none.",
)
@click.pass_context
def compare(
    ctx: click.Context,
    selections: tuple[str, ...],
    lake: str | None,
    out: str,
    diversity_rows: int,
) -> None:
    """Compare selections and mixtures: overlap, tags, lengths, scores, pools, verbs, diversity."""
    from tagsieve import comparing
    from tagsieve.console import Console
    from tagsieve.engines.context import Engines

    opened = _open_lake(lake)
    with closing(Engines(verbose=_verbose(ctx.find_root()))) as engines:
        comparing.compare(opened, engines, Console(), selections, out, diversity_rows)


@main.command()
@click.argument("targets", nargs=-1, required=True, metavar="POOL ...")
@_LAKE_OPTION
@click.option("--selection", help="Look in this selection; default: in all other pools.")
@click.option(
    "--at-least",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="A tag that fewer rows have is told.",
)
@click.option("--version", help="Ontology version; default: the newest.")
@click.option(
    "--out",
    default="out/gaps.html",
    show_default=True,
    help="The page; its figures lie beside it as JSON.",
)
@click.pass_context
def gaps(
    ctx: click.Context,
    targets: tuple[str, ...],
    lake: str | None,
    selection: str | None,
    at_least: int,
    version: str | None,
    out: str,
) -> None:
    """Which tags of a target, given as pools of the lake, the other pools or a selection lack."""
    from tagsieve import comparing
    from tagsieve.console import Console
    from tagsieve.engines.context import Engines

    opened = _open_lake(lake)
    with closing(Engines(verbose=_verbose(ctx.find_root()))) as engines:
        comparing.gaps(opened, engines, Console(), targets, out, selection, at_least, version)


@main.command()
@click.argument("tables", nargs=-1, metavar="[TABLE ...]")
@_LAKE_OPTION
@click.option(
    "--retention-hours",
    type=click.IntRange(min=0),
    default=168,
    show_default=True,
    help="Keep what left a table less than this long ago.",
)
@click.option(
    "--unpin-days",
    type=click.FloatRange(min=0),
    help="Release versions pinned only by runs that ended longer ago; default: never.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing; show what would be done.")
def maintain(
    tables: tuple[str, ...],
    lake: str | None,
    retention_hours: int,
    unpin_days: float | None,
    dry_run: bool,
) -> None:
    """Compact, checkpoint and vacuum tables (default: all), keeping every pinned version.

    Of several lakes in lakes/, name one: what this removes is not removed from a lake by guess.
    """
    from tagsieve import maintaining
    from tagsieve.console import Console

    opened = _open_lake(lake, of_several=False)
    maintaining.maintain(opened, tables, Console(), retention_hours, unpin_days, dry_run)


def _open_lake(given: str | None, of_several: bool = True) -> Lake:
    """The lake that was given, else the one in lakes/; `of_several`: the last used one."""
    from tagsieve.lake import Lake, check_scheme

    if given is None:
        given = _lake_here(of_several)
    check_scheme("--lake", given)
    lake = Lake(given)
    if not lake.tables():
        raise UsageError(f"lake {lake.root}: no tables there; has a run been made?")
    return lake


def _lake_here(of_several: bool) -> str:
    """The lake in lakes/; of several, the one whose table `runs` changed last."""
    found = sorted(path for path in Path("lakes").glob("*") if path.is_dir())
    if len(found) == 1:
        return str(found[0])
    used = {path: path / "runs" / "_delta_log" for path in found}
    used = {path: log for path, log in used.items() if log.is_dir()}
    if not (used and of_several):
        what = "is none" if not found else "are " + ", ".join(map(str, found))
        raise UsageError(f"name the lake with --lake; in lakes/ there {what}")
    last = max(used, key=lambda path: used[path].stat().st_mtime_ns)
    # Not among what the command prints, which may be read by a program.
    click.echo(
        f"lake {last}, the last used of {len(found)} in lakes/; --lake names another", err=True
    )
    return str(last)


@main.command()
@click.argument("path", default="recipe.yaml")
@click.option("--data", default="data/*.jsonl", show_default=True, help="Your files.")
@click.option("--pool", default="mine", show_default=True, help="Name of their pool.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(path: str, data: str, pool: str, force: bool) -> None:
    """Write a commented recipe for your own files."""
    from importlib import resources

    target = Path(path)
    if target.exists() and not force:
        raise UsageError(f"{path} is there already; --force replaces it")
    template = (resources.files("tagsieve") / "init_recipe.yaml").read_text("utf-8")
    quoted = {"data": json.dumps(data, ensure_ascii=False), "pool": json.dumps(pool)}
    filled = re.sub(r"\{(data|pool)\}", lambda found: quoted[found[1]], template)
    try:
        target.write_text(filled, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}") from error
    click.echo(f"wrote {path}; next:\n  tagsieve describe {path}\n  tagsieve run {path}")


@main.command()
@click.option("--fix", is_flag=True, help="Fetch what is missing and can be fetched.")
def doctor(fix: bool) -> None:
    """Check Java, memory, engines and versions; say how to mend what is wrong."""
    from tagsieve.console import Console
    from tagsieve.inspecting import show_health

    if not show_health(Console(), fix):
        raise TagsieveError("something is missing; see the last column")


@main.group()
def bank() -> None:
    """Banks of labelled queries for the memory tagger."""


@bank.command("build")
@click.argument("folder")
@click.argument("files", nargs=-1)
@click.option("--lake", help="Take the raw tags of this lake, too.")
@click.option("--tagger", help="Whose raw tags, where the lake has several.")
@click.option("--name", default="mine", show_default=True, help="A short name for the bank.")
@click.option("--licence", default="unknown", show_default=True, help="For the bank's card.")
def build(
    folder: str,
    files: tuple[str, ...],
    lake: str | None,
    tagger: str | None,
    name: str,
    licence: str,
) -> None:
    """Make a bank for the memory tagger from labelled queries (JSON lines with query and tags)."""
    from tagsieve.banking import make_bank
    from tagsieve.console import Console

    source = _open_lake(lake) if lake else None
    make_bank(folder, files, source, tagger, name, licence, Console())


@main.command()
def schema() -> None:
    """Print the JSON Schema of recipes (for editors)."""
    from tagsieve.recipe import Recipe

    click.echo(json.dumps(Recipe.model_json_schema(), indent=2))


def job(name: str) -> None:
    """What a file in `jobs/` calls: the same command, under spark-submit or ray job submit."""
    _end(lambda: main.main(args=[name, *sys.argv[1:]], prog_name=f"jobs/{name}.py"))


def entry() -> None:
    """The `tagsieve` program."""
    # Child processes of the engines find this Python first, whatever PATH says.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    _end(main)


def _end(command: Callable[[], None]) -> NoReturn:
    """Run a command, whose engines are closed then, and end the process with its exit code.

    Not by the interpreter's own end: a thread of Arrow may still hold the last buffers of a read,
    which are Python's, and one that lets go of them while the interpreter ends aborts the process.
    """
    code: Any = 0
    try:
        command()
    except SystemExit as end:
        code = end.code
    with suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
