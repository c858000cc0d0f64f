"""Which rows are kept from a training, to measure it by."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

_PARTS = 1_000_000


def held_out(key: Column, share: float, seed: int) -> Column:
    """Whether a row is held out: by a hash of its key (a string, never null), so that it stays on
    its side whatever other rows come or go, and rows of one key are on one side."""
    part = F.pmod(F.xxhash64(F.lit(seed).cast("long"), F.lit("held out"), key), F.lit(_PARTS))
    return part < round(share * _PARTS)
