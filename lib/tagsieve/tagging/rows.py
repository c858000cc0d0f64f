"""What all taggers give: rows of `raw_tags`, each with its failure if it has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tagsieve.engines.microbatch import FAILURE
from tagsieve.lake import TABLES

TAGGED = TABLES["raw_tags"].schema.append(pa.field("failure", FAILURE))


def tagged_rows(tagger: str, run_id: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of one tagger in one run as Arrow; missing columns are null."""
    told = {"tagger": tagger, "run_id": run_id}
    return pa.Table.from_pylist([{**row, **told} for row in rows], schema=TAGGED)
