"""The rows that are compared, whatever named them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.turns import first_human_text
from tagsieve.errors import UsageError
from tagsieve.lake import Lake

KEY = ("pool", "sample_id")


def compared_rows(context: Context, names: Sequence[str]) -> DataFrame:
    """The rows of some selections, and the distinct ones of mixtures: `selection`, `pool`,
    `sample_id`, `rank`, `run_id`. A selection goes before a mixture of its name."""
    selections = context.pinned("selections").where(F.col("selection").isin(*names))
    own = selections_of(context.lake)
    others = [name for name in names if name not in own]
    mixtures = context.pinned("mixtures").where(F.col("mixture").isin(*others))
    mixed = mixtures.groupBy(F.col("mixture").alias("selection"), *KEY)
    rows = mixed.agg(F.min("position").alias("rank"), F.max("run_id").alias("run_id"))
    return selections.select("selection", *KEY, "rank", "run_id").unionByName(rows)


def selections_of(lake: Lake) -> list[str]:
    """The names of all selections."""
    return _named(lake, "selections", "selection")


def _named(lake: Lake, table: str, column: str) -> list[str]:
    if lake.version(table) is None:
        return []
    return sorted({file.partition[column] for file in lake.files(table)})


def check_names(lake: Lake, names: Sequence[str]) -> None:
    """Raise UsageError for what is neither a selection nor a mixture, naming those that are."""
    known = sorted({*selections_of(lake), *_named(lake, "mixtures", "mixture")})
    check_known("compare", lake, names, known, "selection or mixture", "run the step select or mix")


def check_known(
    command: str, lake: Lake, names: Sequence[str], known: Sequence[str], what: str, hint: str
) -> None:
    """Raise UsageError for a name that is not `known`: `what` it is not, and of nothing known the
    `hint`."""
    for name in names:
        if name in known:
            continue
        if not known:
            raise UsageError(f"{command} {name}: lake {lake.root} has no {what} yet; {hint}")
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"{command} {name}: lake {lake.root} has no such {what}; {meant}known: "
            f"{', '.join(known)}"
        )


def with_texts(context: Context, rows: DataFrame) -> DataFrame:
    """Rows with `turns`, and of the first human turn `query_id` and `instruction`."""
    samples = context.pinned("samples").select(*KEY, "turns", "query_ids")
    return rows.join(samples, list(KEY)).select(
        *rows.columns,
        "turns",
        F.get("query_ids", F.lit(0)).alias("query_id"),
        first_human_text().alias("instruction"),
    )
