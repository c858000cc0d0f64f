"""Trying again what lies in quarantine."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame

from tagsieve.engines.context import Context
from tagsieve.engines.quarantine import try_again
from tagsieve.engines.turns import distinct_queries
from tagsieve.lease import lease
from tagsieve.tagging.config import CascadeConfig, SingleTaggerConfig, TagConfig
from tagsieve.tagging.taggers import tagger_fingerprint
from tagsieve.tagging.work import (
    answers_of,
    tag_pending,
    writer_of,
)


def replay(context: Context, config: TagConfig, reasons: Sequence[str] = ()) -> None:
    """Ask again for the queries that lie in quarantine for this tagger (of a cascade: for its
    language model), for any of `reasons` (none: for all).

    A query that is answered now gets its row in `raw_tags`; one that fails again lies in
    quarantine anew. Either way its older quarantine row names this run in `resolved_by`. A cascade
    copies the new rows when `tag` runs next. Raises RunError when nothing lies there.
    """
    run = context.run
    run.unit = "query"
    run.reads("samples", "quarantine")
    single = config.llm if isinstance(config, CascadeConfig) else config
    replay_queries(context, single, distinct_queries(context.pinned("samples")), reasons)
    run.wrote("raw_tags", "quarantine")


def replay_queries(
    context: Context,
    config: SingleTaggerConfig,
    queries: DataFrame,
    reasons: Sequence[str],
    setting: str = "tag",
) -> None:
    """As `replay`, of `queries` (`query_id`, `text`, each once), for a step of its own ledger.

    `setting`: what the config is in the recipe, for messages.
    """
    run, lake = context.run, context.lake
    tagger = tagger_fingerprint(config)
    with lease(lake, f"tag-{tagger}", run.run_id):
        writer = writer_of(lake, tagger)

        def ask(pending: DataFrame) -> int:
            return tag_pending(
                context, config, tagger, writer, pending, run, context.limit, setting=setting
            )

        def answered() -> DataFrame:
            return answers_of(context, tagger)

        try_again(context, tagger, "query_id", queries, answered, ask, reasons)
