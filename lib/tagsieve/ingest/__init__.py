"""Raw files of many types and shapes become `samples`, or `rejects` with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tagsieve.ingest.config import IngestConfig, Input

if TYPE_CHECKING:
    from tagsieve.ingest.step import ingest

__all__ = ["IngestConfig", "Input", "ingest"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from tagsieve.ingest import step

    return getattr(step, name)
