"""The rows that are compared, whatever named them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.errors import UsageError
from tagsieve.lake import Lake

KEY = ("pool", "sample_id")


def compared_rows(context: Context, names: Sequence[str]) -> DataFrame:
    """The rows of some selections: `selection`, `pool`, `sample_id`, `rank`, `run_id`."""
    selections = context.pinned("selections").where(F.col("selection").isin(*names))
    return selections.select("selection", *KEY, "rank", "run_id")


def check_names(lake: Lake, names: Sequence[str], command: str = "compare") -> None:
    """Raise UsageError for a selection that is not there, naming those that are."""
    known: list[str] = []
    if lake.version("selections") is not None:
        known = sorted({file.partition["selection"] for file in lake.files("selections")})
    for name in names:
        if name in known:
            continue
        if not known:
            raise UsageError(
                f"{command} {name}: lake {lake.root} has no selection yet; run the step select"
            )
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"{command} {name}: lake {lake.root} has no such selection; {hint}known: "
            f"{', '.join(known)}"
        )


def with_texts(context: Context, rows: DataFrame) -> DataFrame:
    """Rows with `turns`, and of the first human turn `query_id` and `instruction`."""
    samples = context.pinned("samples").select(*KEY, "turns", "query_ids")
    asked = F.filter("turns", lambda turn: turn["role"] == "user")
    return rows.join(samples, list(KEY)).select(
        *rows.columns,
        "turns",
        F.get("query_ids", F.lit(0)).alias("query_id"),
        F.get(asked, F.lit(0))["content"].alias("instruction"),
    )
