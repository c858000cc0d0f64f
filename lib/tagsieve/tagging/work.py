"""Finding the queries that a tagger has yet to answer, and having them answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import Writer
from tagsieve.engines.pending import do_pending
from tagsieve.engines.quarantine import quarantined
from tagsieve.lake import Lake
from tagsieve.ledger import StepRun
from tagsieve.tagging.config import SingleTaggerConfig
from tagsieve.tagging.taggers import actors_of


def count_queries(context: Context) -> int:
    """How many distinct queries there are."""
    return context.pinned("samples").select(F.explode("query_ids")).distinct().count()


def answers_of(context: Context, tagger: str) -> DataFrame:
    """The rows of `raw_tags` of a tagger."""
    rows = context.lake.read(context.engines.spark, "raw_tags")
    return rows.where(F.col("tagger") == tagger)


def unanswered(
    context: Context, queries: DataFrame, tagger: str, quarantined_for: str | None = None
) -> DataFrame:
    """Those of `queries` that have no row of a tagger and do not lie in quarantine, for it or for
    the tagger that it leaves them to."""
    seen = answers_of(context, tagger).select("query_id")
    seen = seen.unionByName(quarantined(context, quarantined_for or tagger, "query_id"))
    return queries.join(seen, "query_id", "left_anti")


def writer_of(lake: Lake, tagger: str) -> Writer:
    """The one writer of a tagger's rows; made before what is done already is looked up."""
    return Writer(lake, "raw_tags", _owner(tagger))


def commits_of(lake: Lake, tagger: str) -> int:
    """How many commits have put rows of a tagger into `raw_tags`."""
    return lake.commits_of("raw_tags", _owner(tagger))


def _owner(tagger: str) -> str:
    return f"tag {tagger}"


def tag_pending(
    context: Context,
    config: SingleTaggerConfig,
    tagger: str,
    writer: Writer,
    pending: DataFrame,
    run: StepRun,
    limit: int | None = None,
    meanwhile: Callable[[int], None] | None = None,
    setting: str = "tag",
) -> int:
    """Have the `pending` queries (`query_id`, `text`; at most `limit`) answered, and commit the
    answers; gives how many there were.

    Counts in `run` what was kept, quarantined or left for the budget, and what the engine counted.
    `meanwhile` is called with the number of queries while the models load. `setting`: what the
    config is in the recipe, for messages.
    """
    if limit is not None:
        pending = pending.orderBy("query_id").limit(limit)
    context.engines.ray()
    abstained = 0

    def count_abstained(rows: pa.Table) -> None:
        nonlocal abstained
        abstained += pc.sum(pc.equal(pc.list_value_length(rows["tags"]), 0)).as_py() or 0

    try:
        return do_pending(
            replace(context, run=run),
            actors_of(config, tagger, run.run_id, context.engines.ray_config, setting),
            config,
            writer,
            pending.select("query_id", "text"),
            "queries",
            meanwhile or (lambda count: None),  # noqa: ARG005
            count_abstained,
        )
    finally:
        run.metrics["abstained"] = float(abstained)
