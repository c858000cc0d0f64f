"""Pools become training sets in given proportions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.lazy import lazy
from tagsieve.mixing.config import MixConfig

if TYPE_CHECKING:
    from tagsieve.mixing.step import mix

__all__ = ["MixConfig", "mix"]


__getattr__ = lazy({"mix": "tagsieve.mixing.step"})
