"""Contents become scores: by a model's losses, by a trained scorer, or by counting."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tagsieve.scoring.config import ScoreConfig, ScorerConfig

if TYPE_CHECKING:
    from tagsieve.scoring.scorers import check_scorers, scorer_fingerprints
    from tagsieve.scoring.step import score

__all__ = ["ScoreConfig", "ScorerConfig", "check_scorers", "score", "scorer_fingerprints"]


_LAZY = {
    "check_scorers": "tagsieve.scoring.scorers",
    "score": "tagsieve.scoring.step",
    "scorer_fingerprints": "tagsieve.scoring.scorers",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(name)
