"""Models compare and grade: pairs of conversations, answers, tags, skills."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.judging.config import JudgeConfig
from tagsieve.lazy import lazy

if TYPE_CHECKING:
    from tagsieve.judging.answers import preferences
    from tagsieve.judging.pairs import PairSources, pairing_name, pairs_asker
    from tagsieve.judging.step import check_judge, judge, replay, task_of
    from tagsieve.judging.tags import TagSources

__all__ = [
    "JudgeConfig", "PairSources", "TagSources", "check_judge", "judge", "pairing_name",
    "pairs_asker", "preferences", "replay", "task_of",
]  # fmt: skip

__getattr__ = lazy(
    {
        "PairSources": "tagsieve.judging.pairs",
        "TagSources": "tagsieve.judging.tags",
        "check_judge": "tagsieve.judging.step",
        "judge": "tagsieve.judging.step",
        "pairing_name": "tagsieve.judging.pairs",
        "pairs_asker": "tagsieve.judging.pairs",
        "preferences": "tagsieve.judging.answers",
        "replay": "tagsieve.judging.step",
        "task_of": "tagsieve.judging.step",
    }
)
