"""Models are measured: their answers to test sets, and a tagger's tags against its teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.evaluating.config import EvaluateConfig
from tagsieve.lazy import lazy

if TYPE_CHECKING:
    from tagsieve.evaluating.step import evaluate, replay, task_of
    from tagsieve.evaluating.tags import TagSources

__all__ = ["EvaluateConfig", "TagSources", "evaluate", "replay", "task_of"]

__getattr__ = lazy(
    {
        "TagSources": "tagsieve.evaluating.tags",
        "evaluate": "tagsieve.evaluating.step",
        "replay": "tagsieve.evaluating.step",
        "task_of": "tagsieve.evaluating.step",
    }
)
