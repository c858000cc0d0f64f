"""Queries become raw tags, by a model or by labelled examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tagsieve.tagging.config import MemoryTaggerConfig, TagConfig

if TYPE_CHECKING:
    from tagsieve.tagging.memory import tagger_fingerprint
    from tagsieve.tagging.step import tag

__all__ = ["MemoryTaggerConfig", "TagConfig", "tag", "tagger_fingerprint"]


def __getattr__(name: str) -> Any:
    if name == "tagger_fingerprint":
        from tagsieve.tagging.memory import tagger_fingerprint

        return tagger_fingerprint
    if name == "tag":
        from tagsieve.tagging.step import tag

        return tag
    raise AttributeError(name)
