"""Selections side by side: what they share, what they hold, what only one of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.lazy import lazy

if TYPE_CHECKING:
    from tagsieve.comparing.step import compare
    from tagsieve.comparing.verbs import root_verbs

__all__ = ["compare", "root_verbs"]

__getattr__ = lazy({"compare": "tagsieve.comparing.step", "root_verbs": "tagsieve.comparing.verbs"})
