"""Conversations become vectors, by a sentence encoder or a causal language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.embedding.config import CausalEmbedConfig, EmbedConfig, SentenceEmbedConfig
from tagsieve.lazy import lazy

if TYPE_CHECKING:
    from tagsieve.embedding.embedder import encode_texts
    from tagsieve.embedding.encoders import encoder_fingerprint
    from tagsieve.embedding.step import embed, replay

__all__ = [
    "CausalEmbedConfig",
    "EmbedConfig",
    "SentenceEmbedConfig",
    "embed",
    "encode_texts",
    "encoder_fingerprint",
    "replay",
]

__getattr__ = lazy(
    {
        "embed": "tagsieve.embedding.step",
        "encode_texts": "tagsieve.embedding.embedder",
        "encoder_fingerprint": "tagsieve.embedding.encoders",
        "replay": "tagsieve.embedding.step",
    }
)
