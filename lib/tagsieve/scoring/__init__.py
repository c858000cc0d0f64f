"""Contents become scores: by a model's losses, by a trained scorer, by a judge, by their
neighbours, or by counting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.lazy import lazy
from tagsieve.scoring.config import ScoreConfig, ScorerConfig

if TYPE_CHECKING:
    from tagsieve.scoring.neighbours import vector_set
    from tagsieve.scoring.replaying import replay
    from tagsieve.scoring.scorers import check_scorers, scorer_fingerprints
    from tagsieve.scoring.step import score

__all__ = [
    "ScoreConfig",
    "ScorerConfig",
    "check_scorers",
    "replay",
    "score",
    "scorer_fingerprints",
    "vector_set",
]


__getattr__ = lazy(
    {
        "check_scorers": "tagsieve.scoring.scorers",
        "replay": "tagsieve.scoring.replaying",
        "score": "tagsieve.scoring.step",
        "scorer_fingerprints": "tagsieve.scoring.scorers",
        "vector_set": "tagsieve.scoring.neighbours",
    }
)
