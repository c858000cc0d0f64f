"""Select configs from plain values, and what selections took."""

from pydantic import TypeAdapter

from handmade import rows_of
from tagsieve.selection import SelectConfig

_ADAPTER = TypeAdapter(SelectConfig)


def select_config(values):
    """The config of a recipe's `select`."""
    return _ADAPTER.validate_python(values)


def chosen(lake, name="mine"):
    """(pool, sample id) of a selection's rows by rank."""
    rows = rows_of(lake, "selections", selection=name)
    rows.sort(key=lambda row: row["rank"])
    assert [row["rank"] for row in rows] == list(range(len(rows)))
    return [(row["pool"], row["sample_id"]) for row in rows]
