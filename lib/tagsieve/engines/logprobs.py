"""What a causal language model thinks of given text: losses of its tokens, odds of the next one.

Nothing is generated. Two engines give the same answers: transformers here, in tiles of fixed shapes
(`CausalLM`), and vLLM by its prompt log-probabilities (`tagsieve.engines.llm.logprobs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tagsieve.engines.causal import CausalLM, Tile
from tagsieve.engines.encoders import Array, Dtype
from tagsieve.engines.models import model_folder

if TYPE_CHECKING:
    import torch

_LOGITS = 2**25
"""Logits held at once: 128 MiB of float32."""

_ROWS = 64
_BLOCK = {"cpu": 256, "cuda": 2048}
"""Positions of one product with the model's head: a multiple of `_ROWS`, fewer where the logits
would be more than `_LOGITS`."""


@dataclass(frozen=True)
class Losses:
    """Asks for the loss (negative log-likelihood, in nats) of each of `tokens` from `start` on,
    given all before it. `start` is at least 1: nothing predicts the first token."""

    tokens: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class NextToken:
    """Asks for the logits of `among` as the token after `tokens`, up to a number that is added to
    all of them (their log-probabilities are such logits)."""

    tokens: tuple[int, ...]
    among: tuple[int, ...]


Question = Losses | NextToken


class LogprobEngine(Protocol):
    """Answers questions. `max_tokens`: the longest text that it takes."""

    tokenizer: Any
    max_tokens: int

    async def start(self) -> None:
        """Load the model."""

    async def answer(self, questions: Sequence[Question]) -> list[Array]:
        """float32 [len(tokens) - start] for each `Losses`, [len(among)] for each `NextToken`, in
        their order."""


class TransformersLogprobs:
    """Answers by a model of transformers; holds it and, beside one tile's states, `_LOGITS`."""

    def __init__(
        self,
        model: str,
        revision: str | None,
        dtype: Dtype,
        threads: int | None,
        max_tokens: int | None,
        device: str = "cpu",
    ) -> None:
        self._named = (model, revision)
        self._loaded_by = (dtype, threads, max_tokens, device)

    async def start(self) -> None:
        """Load the model."""
        self._model = CausalLM(model_folder(*self._named), *self._loaded_by)
        self.tokenizer, self.max_tokens = self._model.tokenizer, self._model.max_tokens
        fit = _LOGITS // self._model.vocabulary // _ROWS * _ROWS
        self._block = max(_ROWS, min(_BLOCK[self._model.device], fit))

    async def answer(self, questions: Sequence[Question]) -> list[Array]:
        """As `LogprobEngine`. A question's answer is the same bits whatever others there are."""
        import torch

        answers: list[Array] = [np.empty(0, np.float32)] * len(questions)
        with torch.inference_mode():
            for kind, answer in ((Losses, self._losses), (NextToken, self._next)):
                numbers = [n for n, q in enumerate(questions) if isinstance(q, kind)]
                for tile in self._model.tiles([questions[n].tokens for n in numbers]):
                    asked = [numbers[row] for row in tile.rows]
                    found = answer(tile, [questions[n] for n in asked])
                    for n, values in zip(asked, found, strict=True):
                        answers[n] = values
        return answers

    def _losses(self, tile: Tile, asked: Sequence[Any]) -> list[Array]:
        import torch

        length = tile.ids.shape[1]
        spans = [
            np.arange(question.start - 1, len(question.tokens) - 1) + line * length
            for line, question in enumerate(asked)
        ]
        places = np.concatenate(spans)
        # The head sees blocks of one size, filled up with the first position: the shape of a
        # product decides its last bits, and beside multiples of the kernel's also the place does.
        padded = torch.zeros(-len(places) % self._block + len(places), dtype=torch.int64)
        padded[: len(places)] = torch.from_numpy(places)
        padded = padded.to(tile.ids.device)
        states, targets = tile.states.flatten(0, 1), tile.ids.roll(-1, 1).flatten()
        blocks = [
            _cross_entropy(self._model.logits(states[part]), targets[part])
            for part in padded.split(self._block)
        ]
        losses = torch.cat(blocks).cpu().numpy()
        return np.split(losses[: len(places)], np.cumsum([len(span) for span in spans])[:-1])

    def _next(self, tile: Tile, asked: Sequence[Any]) -> list[Array]:
        import torch

        lines = torch.arange(len(tile.ids), device=tile.ids.device)
        states = tile.states[lines, (tile.mask.sum(1) - 1).clamp(min=0)]
        found: dict[tuple[int, ...], Array] = {}
        for question in asked:
            if question.among not in found:
                logits = self._model.logits_of(states, question.among)
                found[question.among] = logits.cpu().numpy()
        return [found[question.among][line] for line, question in enumerate(asked)]


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
