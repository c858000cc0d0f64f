"""The tag step: queries without tags of this tagger in, `raw_tags` out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyspark.sql import DataFrame

from tagsieve.engines.context import Context
from tagsieve.engines.pending import OVER_BUDGET
from tagsieve.engines.turns import distinct_queries
from tagsieve.lease import lease
from tagsieve.tagging.cascade import tag_cascade
from tagsieve.tagging.config import CascadeConfig, SingleTaggerConfig, TagConfig
from tagsieve.tagging.taggers import tagger_fingerprint
from tagsieve.tagging.work import (
    commits_of,
    count_queries,
    tag_pending,
    unanswered,
    writer_of,
)


def tag(context: Context, config: TagConfig) -> None:
    """Tag every distinct query that has no row of this tagger yet, here or in quarantine.

    Spark finds the pending queries (an anti-join on `query_id`) and hands them over as Parquet;
    Ray actors tag chunks of them; the driver commits micro-batches, and holds one of them and the
    chunks at the actors at a time. A query of which the tagger is sure of nothing gets an empty tag
    list, counted as `abstained`; one that it cannot answer goes to quarantine. One run at a time
    works for a tagger; RunError for the second.
    """
    run = context.run
    run.unit = "query"
    run.reads("samples")
    tagger = tagger_fingerprint(config)
    if run.done_before(tagger, context.limit, *_answered_elsewhere(context, config)):
        return
    with lease(context.lake, f"tag-{tagger}", run.run_id):
        if isinstance(config, CascadeConfig):
            tag_cascade(context, config, tagger)
        else:
            queries = distinct_queries(context.pinned("samples"))
            _tag_lacking(context, config, tagger, queries, lambda: count_queries(context))
    if run.rejected[OVER_BUDGET]:
        run.fingerprint = None  # not done: the next run goes on
    run.wrote("raw_tags", "quarantine")


def _answered_elsewhere(context: Context, config: TagConfig) -> list[Any]:
    """What a cascade copies from beside the samples: its language model's answers, of which
    `replay`, too, makes some. Of the other taggers nothing."""
    if not isinstance(config, CascadeConfig):
        return []
    return [commits_of(context.lake, tagger_fingerprint(config.llm))]


def tag_queries(
    context: Context, config: SingleTaggerConfig, queries: DataFrame, setting: str
) -> None:
    """As `tag`, of `queries` (`query_id`, `text`, each once) alone, for a step of its own ledger.

    `setting`: what the config is in the recipe, for messages.
    """
    tagger = tagger_fingerprint(config)
    with lease(context.lake, f"tag-{tagger}", context.run.run_id):
        _tag_lacking(context, config, tagger, queries, queries.count, setting)


def _tag_lacking(
    context: Context,
    config: SingleTaggerConfig,
    tagger: str,
    queries: DataFrame,
    total: Callable[[], int],
    setting: str = "tag",
) -> None:
    """Tag those of the `total` queries that have no row of the tagger and do not lie in quarantine;
    sets the run's input and known."""
    run = context.run
    writer = writer_of(context.lake, tagger)
    pending = unanswered(context, queries, tagger)

    def count_known(count: int) -> None:
        run.known = 0 if context.limit is not None else total() - count
        run.input = run.known + count

    tag_pending(context, config, tagger, writer, pending, run, context.limit, count_known, setting)
