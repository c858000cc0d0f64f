"""The screen step: samples in, `near_duplicates` and `contaminations` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.screened import CONTAMINATED, NEAR_DUPLICATE
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import Lake, rows_table
from tagsieve.ledger import fingerprint
from tagsieve.screening.config import ScreenConfig
from tagsieve.screening.contamination import contaminated_turns
from tagsieve.screening.near_duplicates import near_duplicates
from tagsieve.screening.similar_questions import SIMILAR, QuestionEncoder, similar_questions
from tagsieve.test_sets.reading import read_questions

TEXT_LENGTH = 500
"""Characters of a question that are kept with what it was found in."""


def screen(
    context: Context,
    config: ScreenConfig,
    pools: Sequence[str],
    encoder: QuestionEncoder | None = None,
) -> None:
    """Find the contents that selections are to leave out, over all samples.

    Questions of test sets go first: a near-duplicate's twin that stays is no question. `pools`: in
    this order a pool keeps a text that has twins in others (pools not named follow, by name).
    `encoder`: of the step embed, needed where `embedding` is set. The rows of this screening
    replace those that it had of fewer samples; `screenings` says which samples it is of. Rejected
    reasons, in the unit sample: `contaminated`, `near_duplicate_text`. Holds the questions in
    memory.
    """
    run, lake = context.run, context.lake
    run.unit = "sample"
    by_vectors = bool(config.test_sets) and config.embedding is not None
    run.reads("samples", *(["embeddings"] if by_vectors else []))
    questions = read_questions(config.test_sets)
    name = _name(config, questions, pools, encoder)
    current = lake.run_of("screenings", "screening", name)
    if run.done_before(name, output_of=current):
        return
    spark = context.engines.spark
    with context.console.spark_progress(spark, "screen"):
        samples = context.pinned("samples")
        run.input = samples.count()
    found = _contaminations(context, config, encoder, samples, questions)
    with context.console.spark_progress(spark, "screen"):
        left = samples.join(found.select("sample_id").distinct(), "sample_id", "left_anti")
        twins = _twins(context, config, left, pools)
        for table, rows in (("contaminations", found), ("near_duplicates", twins)):
            told = {"screening": F.lit(name), "run_id": F.lit(run.run_id)}
            lake.replace(rows.withColumns(told), table, {"screening": name})
        reasons = _reasons(found, twins)
        counts = samples.join(reasons, "sample_id").groupBy("reason").count().collect()
    run.rejected.update({row["reason"]: row["count"] for row in counts})
    run.kept = run.input - run.rejected.total()
    _record(context, config, name, questions)
    run.wrote("contaminations", "near_duplicates", "screenings")


def check_screen(config: ScreenConfig | None) -> ScreenConfig:
    """The config, whose test sets can be read. Raises UsageError when there is none, or when a
    test set is not there or lacks its questions."""
    if config is None:
        raise UsageError(
            "screen: the step needs a section of its own; screen: {} takes the defaults, "
            "screen: {test_sets: [{name: ..., path: ..., field: ...}]} names test sets"
        )
    read_questions(config.test_sets)
    return config


def find_screening(
    lake: Lake, config: ScreenConfig, pools: Sequence[str], encoder: QuestionEncoder | None = None
) -> str:
    """The name of the screening that these settings made of all samples there are.

    Raises RunError when the step has not run with them, or samples have come since.
    """
    name = _name(config, read_questions(config.test_sets), pools, encoder)
    rows = lake.arrow("screenings", filters=[("screening", "=", name)]).to_pylist()
    samples = lake.delta("samples")
    # Samples are never removed, so as many are the same ones.
    count = 0 if samples is None else samples.count()
    if not rows:
        raise RunError("screen: these settings have not been run yet; run the step screen first")
    if rows[0]["samples"] != count:
        raise RunError(
            f"screen: {rows[0]['samples']:,} samples were screened, there are {count:,}; run the "
            "step screen again"
        )
    return name


def _name(
    config: ScreenConfig,
    questions: pa.Table,
    pools: Sequence[str],
    encoder: QuestionEncoder | None,
) -> str:
    """A hash of all that decides which samples are left out, but for the samples themselves."""
    settings = config.model_dump(exclude={"test_sets"})
    vectors = encoder.fingerprint if encoder and config.embedding else None
    return f"screening-{fingerprint(settings, questions.to_pylist(), list(pools), vectors)[:12]}"


def _contaminations(
    context: Context,
    config: ScreenConfig,
    encoder: QuestionEncoder | None,
    samples: DataFrame,
    questions: pa.Table,
) -> DataFrame:
    """The columns of `contaminations` but `screening` and `run_id`; each question that a content
    has, once."""
    spark = context.engines.spark
    key = ["sample_id", "test_set", "question"]
    asked = spark.createDataFrame(questions)
    by_ngram = spark.createDataFrame([], _BY_NGRAM)
    by_vector = spark.createDataFrame(SIMILAR.empty_table())
    if config.test_sets and config.ngram is not None:
        with context.console.spark_progress(spark, "screen: n-grams of questions"):
            by_ngram = contaminated_turns(context, config.ngram, samples, asked)
            by_ngram = context.stored("by-ngram", by_ngram)
    if config.test_sets and config.embedding is not None:
        assert encoder is not None
        threshold = config.embedding.threshold
        by_vector = similar_questions(context, threshold, encoder, samples, questions)
    how = F.when(F.col("overlap").isNotNull(), "ngram").otherwise("embedding")
    text = F.substring("text", 1, TEXT_LENGTH)
    found = by_ngram.join(by_vector, key, "full").join(asked, ["test_set", "question"])
    return context.stored(
        "contaminations",
        found.select(*key, how.alias("how"), "overlap", "similarity", "turn", text.alias("text")),
    )


_BY_NGRAM = "sample_id string, test_set string, question long, turn long, overlap double"
_TWINS = "sample_id string, kept string, similarity double"


def _twins(
    context: Context, config: ScreenConfig, samples: DataFrame, pools: Sequence[str]
) -> DataFrame:
    """The columns of `near_duplicates` but `screening` and `run_id`."""
    if config.near_duplicates is None:
        return context.engines.spark.createDataFrame([], _TWINS)
    found = near_duplicates(context, config.near_duplicates, samples, pools)
    return context.stored("twins", found)


def _reasons(contaminations: DataFrame, twins: DataFrame) -> DataFrame:
    """`sample_id`, once, and the `reason` why it is left out."""
    questions = contaminations.select("sample_id", F.lit(CONTAMINATED).alias("reason")).distinct()
    return questions.unionByName(twins.select("sample_id", F.lit(NEAR_DUPLICATE).alias("reason")))


def _record(context: Context, config: ScreenConfig, name: str, questions: pa.Table) -> None:
    """Say in `screenings` that this one is done: last, since a selection trusts it."""
    run = context.run
    rejected: Mapping[str, int] = run.rejected
    row = {
        "screening": name,
        "config": config.model_dump_json(),
        "samples": run.input,
        "questions": questions.num_rows,
        "near_duplicates": rejected.get(NEAR_DUPLICATE, 0),
        "contaminated": rejected.get(CONTAMINATED, 0),
        "created": datetime.now(UTC),
        "run_id": run.run_id,
    }
    context.lake.upsert("screenings", rows_table("screenings", [row]))
