"""Token ids of the texts of a chunk, each tokenised once, whichever scorers ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Tokens:
    """Tokenises without special tokens; holds what it was asked for until `forget`."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}

    def ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of each text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            found = self.tokenizer(
                new, add_special_tokens=False, return_attention_mask=False, verbose=False
            )["input_ids"]
            self._known.update(zip(new, map(tuple, found), strict=True))
        return [self._known[text] for text in texts]

    def forget(self) -> None:
        """Let go of all texts."""
        self._known.clear()
