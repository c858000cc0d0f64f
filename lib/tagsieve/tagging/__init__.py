"""Queries become raw tags, by a model or by labelled examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.lazy import lazy
from tagsieve.tagging.config import (
    CascadeConfig,
    HttpTaggerConfig,
    MemoryTaggerConfig,
    TagConfig,
    VllmTaggerConfig,
)

if TYPE_CHECKING:
    from tagsieve.tagging.replaying import replay, replay_queries
    from tagsieve.tagging.step import tag, tag_queries
    from tagsieve.tagging.taggers import check_tagger, tagger_fingerprint

__all__ = [
    "CascadeConfig",
    "HttpTaggerConfig",
    "MemoryTaggerConfig",
    "TagConfig",
    "VllmTaggerConfig",
    "check_tagger",
    "replay",
    "replay_queries",
    "tag",
    "tag_queries",
    "tagger_fingerprint",
]


__getattr__ = lazy(
    {
        "check_tagger": "tagsieve.tagging.taggers",
        "replay": "tagsieve.tagging.replaying",
        "replay_queries": "tagsieve.tagging.replaying",
        "tag": "tagsieve.tagging.step",
        "tag_queries": "tagsieve.tagging.step",
        "tagger_fingerprint": "tagsieve.tagging.taggers",
    }
)
