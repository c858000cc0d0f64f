"""Seeds are evolved and scored: the training sets of complexity and quality scorers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tagsieve.evolving.config import EvolveConfig

if TYPE_CHECKING:
    from tagsieve.evolving.prompts import check_evolve
    from tagsieve.evolving.step import evolve, replay

__all__ = ["EvolveConfig", "check_evolve", "evolve", "replay"]


_LAZY = {
    "check_evolve": "tagsieve.evolving.prompts",
    "evolve": "tagsieve.evolving.step",
    "replay": "tagsieve.evolving.step",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(name)
