"""What a training is of: where its rows come from, and how they become token ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tagsieve.engines.context import Context
from tagsieve.engines.examples import queries_of_file, read_rows, tagged_queries
from tagsieve.engines.llm.prompts import load_prompt
from tagsieve.training.config import DpoConfig, InstaggerConfig, SftConfig, TrainConfig
from tagsieve.training.encoding import Encoding, completion, conversation, preference, tagging
from tagsieve.training.rows import (
    mixed_rows,
    preference_rows,
    scorer_rows,
    selected_rows,
    tagger_rows,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Frames = Callable[[Context], "DataFrame"]


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    `name`: for people. `tables`: those that are read. `rows`: as `training.rows` has them for the
    task. `hint`: what to do where there is none.
    """

    name: str
    tables: tuple[str, ...]
    rows: Frames
    hint: str


def conversations(name: str, mixed: bool) -> Source:
    """The rows of a selection or a mixture."""
    what, step, table = ("mixture", "mix", "mixtures") if mixed else (
        "selection", "select", "selections"
    )  # fmt: skip
    rows = mixed_rows if mixed else selected_rows
    return Source(
        f"{what} {name}",
        (table, "samples"),
        partial(rows, name=name),
        f"run the step {step} with {step}.name set to it, or set train.{what} to another",
    )


def tags_of(tagger: str, names: Frames | None) -> Source:
    """The queries that a tagger has answered, with its tags; `names`: their names in an ontology,
    as `tagged_queries` has them."""

    def rows(context: Context) -> DataFrame:
        named = None if names is None else names(context)
        return tagger_rows(tagged_queries(context, tagger, named))

    tables = ("raw_tags", "samples", *(() if names is None else ("ontology",)))
    return Source(f"tags of {tagger}", tables, rows, "run the step tag before, with tags to learn")


def tags_file(path: str) -> Source:
    """Queries with tags, from a file."""

    def rows(context: Context) -> DataFrame:
        return tagger_rows(queries_of_file(context, "train.tags_file", path))

    return Source(path, (), rows, "name another train.tags_file")


def scorer_examples(path: str) -> Source:
    """A scorer's training set, from a file."""

    def rows(context: Context) -> DataFrame:
        return scorer_rows(read_rows(context, "train.examples", path), path)

    return Source(path, (), rows, "run the step evolve before, or set train.examples")


def preference_file(path: str) -> Source:
    """Preference pairs, from a file."""

    def rows(context: Context) -> DataFrame:
        return preference_rows(read_rows(context, "train.pairs", path), path)

    return Source(path, (), rows, "name another train.pairs")


def preferences(rows: Frames) -> Source:
    """Preference pairs that a judge has made: `prompt`, `chosen`, `rejected`."""
    return Source(
        "judgements",
        ("judgements",),
        lambda context: preference_rows(rows(context), "judgements"),
        "run the step judge (task answers) before, or set train.pairs",
    )


def encoding_of(config: TrainConfig, tokenizer: Any) -> Encoding:
    """How the rows of a task become token ids."""
    given = {"tokenizer": tokenizer, "max_tokens": config.max_tokens}
    match config:
        case SftConfig():
            return Encoding(
                parts=partial(conversation, template=config.template, tokenizer=tokenizer),
                special=config.template != "chat",
                truncate=config.overlong == "truncate",
                **given,
            )
        case DpoConfig():
            return Encoding(
                parts=partial(preference, template=config.template, tokenizer=tokenizer),
                special=config.template != "chat",
                pairs=True,
                **given,
            )
        case InstaggerConfig():
            prompt = load_prompt(config.prompt, ("query",))
            return Encoding(
                parts=partial(tagging, prompt=prompt, tokenizer=tokenizer),
                special=prompt.text is not None,
                **given,
            )
    return Encoding(parts=partial(completion, tokenizer=tokenizer), special=True, **given)
