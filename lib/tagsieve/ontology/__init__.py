"""Raw tags become an ontology: frequency filter, rule step; and the figures of pools under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tagsieve.ontology.config import AnalyzeConfig, NormalizeConfig

if TYPE_CHECKING:
    from tagsieve.ontology.step import analyze, find_version, normalize

__all__ = ["AnalyzeConfig", "NormalizeConfig", "analyze", "find_version", "normalize"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from tagsieve.ontology import step

    return getattr(step, name)
