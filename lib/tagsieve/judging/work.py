"""What a judge has yet to judge: found, asked, asked again from quarantine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve import records
from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import Writer
from tagsieve.engines.pending import do_pending
from tagsieve.engines.quarantine import quarantined, try_again
from tagsieve.judging.asking import QUESTION, Asker
from tagsieve.lease import lease

JUDGEMENT_ID = "judgement_id"


def judgement_id(judge: str, *parts: str) -> str:
    """The id of a judgement: a hash of the judge and of what it is shown, in this order."""
    return hashlib.sha256("\n".join((judge, *parts)).encode()).hexdigest()[:32]


def judgement_id_column(judge: str, *parts: Column) -> Column:
    """As `judgement_id`."""
    return F.substring(F.sha2(F.concat_ws("\n", F.lit(judge), *parts), 256), 1, 32)


def answer_id(question: str, answer: str) -> str:
    """The id of an answer: that of the conversation that is the question and it."""
    return records.sample_id([("user", question), ("assistant", answer)])


@dataclass(frozen=True)
class Wanted:
    """Judgements that there are to be of one judge.

    `rows`: `judgement_id`, each once, and whatever `questions` needs to make them `QUESTION`s.
    """

    asker: Asker
    rows: DataFrame
    questions: Callable[[DataFrame], DataFrame]


def wanted_in_memory(
    context: Context, asker: Asker, questions: Iterable[Mapping[str, Any]]
) -> Wanted:
    """Judgements of questions (`QUESTION`; `fields` is a mapping) that are in memory; each once."""
    rows = {
        row["judgement_id"]: {**row, "fields": list(row["fields"].items())} for row in questions
    }
    table = pa.Table.from_pylist(list(rows.values()), schema=QUESTION)
    return Wanted(asker, context.engines.spark.createDataFrame(table), lambda lacking: lacking)


def judgements_of(context: Context, judge: str) -> DataFrame:
    """The rows of `judgements` of a judge, as they are now."""
    rows = context.lake.read(context.engines.spark, "judgements")
    return rows.where(F.col("judge") == judge)


def scores_of(context: Context, judge: str) -> dict[str, list[float]]:
    """The scores of a judge by their `judgement_id`, in the order in which things were shown; held
    in memory."""
    rows = context.lake.arrow(
        "judgements", [JUDGEMENT_ID, "items"], filters=[("judge", "=", judge)]
    )
    return {row[JUDGEMENT_ID]: [item["score"] for item in row["items"]] for row in rows.to_pylist()}


def ask(context: Context, wanted: Wanted) -> None:
    """Have those judged that have no judgement yet and do not lie in quarantine.

    Adds to the run's input, known, kept and quarantined. Spark finds what is lacking (an anti-join
    on ids) and hands it over as Parquet; Ray actors ask; the driver commits micro-batches, and
    holds one of them and the chunks at the actors at a time. One run at a time works with a judge;
    RunError for the second.
    """
    run, judge = context.run, wanted.asker.judge
    with lease(context.lake, f"judge-{judge}", run.run_id):
        writer = Writer(context.lake, "judgements", f"judge {judge}")
        rows = context.stored(f"wanted-{judge}", wanted.rows)
        total = rows.count()
        seen = judgements_of(context, judge).select(JUDGEMENT_ID)
        seen = seen.unionByName(quarantined(context, judge, JUDGEMENT_ID))
        lacking = rows.join(seen, JUDGEMENT_ID, "left_anti")

        def found(count: int) -> None:
            run.known += 0 if context.limit is not None else total - count
            run.input += count if context.limit is not None else total

        _do(context, wanted, writer, lacking, found)


def ask_again(context: Context, wanted: Wanted, reasons: Sequence[str]) -> None:
    """Ask about those that lie in quarantine, for any of `reasons` (none: for all), as
    `engines.quarantine.try_again` says."""
    judge = wanted.asker.judge
    with lease(context.lake, f"judge-{judge}", context.run.run_id):
        writer = Writer(context.lake, "judgements", f"judge {judge}")
        rows = context.stored(f"wanted-{judge}", wanted.rows)
        try_again(
            context,
            judge,
            JUDGEMENT_ID,
            rows,
            lambda: judgements_of(context, judge).select(JUDGEMENT_ID),
            lambda lacking: _do(context, wanted, writer, lacking, lambda count: None),  # noqa: ARG005
            reasons,
        )


def _do(
    context: Context,
    wanted: Wanted,
    writer: Writer,
    lacking: DataFrame,
    found: Callable[[int], None],
) -> int:
    if context.limit is not None:
        lacking = lacking.orderBy(JUDGEMENT_ID).limit(context.limit)
    context.engines.ray()
    asker = wanted.asker
    questions = wanted.questions(lacking).select(*QUESTION.names)
    spec = asker.actors(context.run.run_id, context.engines.ray_config)
    return do_pending(context, spec, asker.engine, writer, questions, "judgements", found)
