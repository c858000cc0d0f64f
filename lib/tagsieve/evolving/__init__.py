"""Seeds are evolved and scored: the training sets of complexity and quality scorers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.evolving.config import EvolveConfig
from tagsieve.lazy import lazy

if TYPE_CHECKING:
    from tagsieve.evolving.prompts import check_evolve
    from tagsieve.evolving.step import evolve, replay

__all__ = ["EvolveConfig", "check_evolve", "evolve", "replay"]


__getattr__ = lazy(
    {
        "check_evolve": "tagsieve.evolving.prompts",
        "evolve": "tagsieve.evolving.step",
        "replay": "tagsieve.evolving.step",
    }
)
