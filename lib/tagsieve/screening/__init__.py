"""Near-duplicates and questions of test sets, found in the whole pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.lazy import lazy
from tagsieve.screening.config import ScreenConfig

if TYPE_CHECKING:
    from tagsieve.screening.similar_questions import QuestionEncoder
    from tagsieve.screening.step import check_screen, find_screening, screen

__all__ = ["QuestionEncoder", "ScreenConfig", "check_screen", "find_screening", "screen"]

__getattr__ = lazy(
    {
        "QuestionEncoder": "tagsieve.screening.similar_questions",
        "check_screen": "tagsieve.screening.step",
        "find_screening": "tagsieve.screening.step",
        "screen": "tagsieve.screening.step",
    }
)
