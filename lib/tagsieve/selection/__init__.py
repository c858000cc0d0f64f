"""From tagged samples to a training set of a given size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.lazy import lazy
from tagsieve.selection.config import SelectConfig

if TYPE_CHECKING:
    from tagsieve.selection.comparative import Compared
    from tagsieve.selection.step import Sources, select

__all__ = ["Compared", "SelectConfig", "Sources", "select"]

__getattr__ = lazy(
    {
        "Compared": "tagsieve.selection.comparative",
        "Sources": "tagsieve.selection.step",
        "select": "tagsieve.selection.step",
    }
)
