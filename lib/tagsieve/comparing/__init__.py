"""Selections side by side: what they share, what they hold, what only one of them has; and what a
target has that they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.lazy import lazy

if TYPE_CHECKING:
    from tagsieve.comparing.lacking import gaps
    from tagsieve.comparing.step import compare
    from tagsieve.comparing.verbs import root_verbs

__all__ = ["compare", "gaps", "root_verbs"]

__getattr__ = lazy(
    {
        "compare": "tagsieve.comparing.step",
        "gaps": "tagsieve.comparing.lacking",
        "root_verbs": "tagsieve.comparing.verbs",
    }
)
