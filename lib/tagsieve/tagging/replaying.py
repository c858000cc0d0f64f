"""Trying again what lies in quarantine."""

from __future__ import annotations

from collections.abc import Sequence

from tagsieve.engines.context import Context
from tagsieve.errors import RunError
from tagsieve.lease import lease
from tagsieve.tagging.config import CascadeConfig, TagConfig
from tagsieve.tagging.taggers import tagger_fingerprint
from tagsieve.tagging.work import (
    answers_of,
    close_quarantine,
    distinct_queries,
    pinned_samples,
    quarantine_of_run,
    quarantined_of,
    tag_pending,
    writer_of,
)

GONE = "not_in_samples"
"""A quarantined query that no sample has any more."""


def replay(context: Context, config: TagConfig, reasons: Sequence[str] = ()) -> None:
    """Ask again for the queries that lie in quarantine for this tagger (of a cascade: for its
    language model), for any of `reasons` (none: for all).

    A query that is answered now gets its row in `raw_tags`; one that fails again lies in
    quarantine anew. Either way its older quarantine row names this run in `resolved_by`. Raises
    RunError when nothing lies there.
    """
    run, lake = context.run, context.lake
    run.unit = "query"
    run.reads("samples", "quarantine")
    single = config.llm if isinstance(config, CascadeConfig) else config
    tagger = tagger_fingerprint(single)
    with lease(lake, f"tag-{tagger}", run.run_id):
        writer = writer_of(lake, tagger)
        waiting = quarantined_of(context, tagger, reasons)
        run.input = waiting.count()
        if not run.input:
            known = quarantined_of(context, tagger).count()
            raise RunError(
                f"nothing of tagger {tagger} lies in quarantine"
                + (f" for {', '.join(reasons)}; {known} do for other reasons" if known else "")
            )
        queries = distinct_queries(pinned_samples(context)).join(waiting, "query_id", "left_semi")
        # Answered by a replay that was killed before it could close the row.
        pending = queries.join(answers_of(context, tagger), "query_id", "left_anti")
        run.known = queries.join(answers_of(context, tagger), "query_id", "left_semi").count()
        count = tag_pending(context, single, tagger, writer, pending, run, context.limit)
        gone = run.input - queries.count()
        if gone:
            run.rejected[GONE] = gone
        if context.limit is not None:
            run.input = run.known + count + gone
        again = quarantine_of_run(context, tagger)
        answered = queries.join(answers_of(context, tagger), "query_id", "left_semi")
        close_quarantine(context, tagger, answered.select("query_id"))
        close_quarantine(context, tagger, again, spare_own=True)
    run.wrote("raw_tags", "quarantine")
