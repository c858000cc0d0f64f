"""Models from what was selected: fine-tuned, distilled taggers, scorers, preference-trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.lazy import lazy
from tagsieve.training.config import TrainConfig

if TYPE_CHECKING:
    from tagsieve.training.base import check_train
    from tagsieve.training.step import train

__all__ = ["TrainConfig", "check_train", "train"]

__getattr__ = lazy({"check_train": "tagsieve.training.base", "train": "tagsieve.training.step"})
