"""From tagged samples to a training set of a given size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tagsieve.selection.config import SelectConfig

if TYPE_CHECKING:
    from tagsieve.selection.step import Sources, select

__all__ = ["SelectConfig", "Sources", "select"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from tagsieve.selection import step

    return getattr(step, name)
