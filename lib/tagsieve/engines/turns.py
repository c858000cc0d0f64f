"""What people say in the `turns` of a sample."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F


def human_turns() -> Column:
    """The human turns, in their order."""
    return F.filter("turns", lambda turn: turn["role"] == "user")


def human_texts() -> Column:
    """What the human turns say."""
    return F.transform(human_turns(), lambda turn: turn["content"])


def first_human_text() -> Column:
    """What the first human turn says; null where there is none."""
    return F.get(human_texts(), F.lit(0))
