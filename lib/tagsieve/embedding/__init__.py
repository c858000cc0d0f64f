"""Conversations become vectors, by a sentence encoder or a causal language model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tagsieve.embedding.config import CausalEmbedConfig, EmbedConfig, SentenceEmbedConfig

if TYPE_CHECKING:
    from tagsieve.embedding.encoders import encoder_fingerprint
    from tagsieve.embedding.step import embed, replay

__all__ = [
    "CausalEmbedConfig",
    "EmbedConfig",
    "SentenceEmbedConfig",
    "embed",
    "encoder_fingerprint",
    "replay",
]

_LAZY = {
    "embed": "tagsieve.embedding.step",
    "encoder_fingerprint": "tagsieve.embedding.encoders",
    "replay": "tagsieve.embedding.step",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(name)
