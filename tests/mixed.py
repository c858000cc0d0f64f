"""Mix configs from plain values, and what mixtures hold."""

from pydantic import TypeAdapter

from handmade import rows_of
from tagsieve.mixing import MixConfig

_ADAPTER = TypeAdapter(MixConfig)


def mix_config(values):
    """The config of a recipe's `mix`."""
    return _ADAPTER.validate_python(values)


def mixture_of(lake, name="mix"):
    """(part, pool, sample id, copy) of a mixture's rows by position."""
    rows = rows_of(lake, "mixtures", mixture=name)
    rows.sort(key=lambda row: row["position"])
    assert [row["position"] for row in rows] == list(range(len(rows)))
    return [(row["part"], row["pool"], row["sample_id"], row["copy"]) for row in rows]


def mixture_names(lake):
    """The names of all mixtures."""
    return {row["mixture"] for row in rows_of(lake, "mixtures")}
