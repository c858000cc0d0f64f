"""Causal language models run over given tokens, with nothing generated: hidden states and logits,
each text's independent of the texts beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tagsieve.engines.encoders import Array, Dtype
from tagsieve.errors import UsageError

if TYPE_CHECKING:
    import torch

BUCKETS = (
    32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288,
    16384, 24576, 32768, 65536, 131072,
)  # fmt: skip
"""Padded lengths, in tokens; the model's own limit is the last one."""

TILE_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Tokens of one forward pass: a tile of a bucket of length L always has TILE_TOKENS // L rows, at
least one."""

_PROBE = 8
_UNBOUNDED = 10**9
"""A tokenizer that knows no limit gives a larger one."""


@dataclass(frozen=True)
class Tile:
    """One forward pass over texts of about one length, filled up with empty rows.

    `rows`: which texts these are, int64 [n]; the n-th of them is line n of the others. `ids`,
    `mask`: int64 [size, L], padded on the right, on the device. `states`: the last layer's hidden
    states after the final norm, [size, L, d]; what they are at padding means nothing.
    """

    rows: Array
    ids: torch.Tensor
    mask: torch.Tensor
    states: torch.Tensor


class CausalLM:
    """A causal language model.

    Texts run in tiles of fixed shapes (length buckets x a fixed number of rows), so that what a
    text gets is the same bits whatever texts share its batch; only dtype, threads and the library's
    kernels matter. (Not so in mixtures of experts, whose products have as many rows as tokens chose
    an expert.) Holds the model and one tile's states.

    `max_tokens`: the longest text, the least of the setting and the model's own limit. `device`:
    "cpu" or "cuda". Raises
    UsageError when `folder` holds no causal language model, and when its logits are not those of
    its head on its states (models that scale or cap them).
    """

    def __init__(
        self,
        folder: str,
        dtype: Dtype,
        threads: int | None = None,
        max_tokens: int | None = None,
        device: str = "cpu",
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        if threads:
            torch.set_num_threads(threads)
        self.device = device
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), local_files_only=True
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"model {folder}: no causal language model: {reason}") from error
        self._model.eval().to(self.device)
        self._body, self._head = self._model.base_model, self._model.get_output_embeddings()
        self.dimension: int = self._model.config.get_text_config().hidden_size
        self.vocabulary: int = self._head.weight.shape[0]
        self.max_tokens = self._longest(folder, max_tokens)
        self._check_head(folder)

    def _longest(self, folder: str, setting: int | None) -> int:
        own = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        own = own or self.tokenizer.model_max_length
        if setting is None and own > _UNBOUNDED:
            raise UsageError(f"model {folder} names no longest text; set max_tokens")
        return int(min(own, setting or own))

    def _check_head(self, folder: str) -> None:
        import torch

        ids = torch.arange(_PROBE, device=self.device).unsqueeze(0)
        with torch.inference_mode():
            expected = self._model(input_ids=ids, use_cache=False).logits.float()
            states = self._body(input_ids=ids, use_cache=False).last_hidden_state
            if not torch.allclose(self.logits(states), expected, rtol=1e-3, atol=1e-3):
                raise UsageError(
                    f"model {folder} ({self._model.config.model_type}) scales or caps its logits, "
                    "which is not supported here; name another model"
                )

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits at some positions: states [..., d] give float32 [..., vocabulary].

        Their bits hold for the shape of `states`: one that differs from tile to tile, such as the
        positions that are no padding, would make a text's logits depend on the others.
        """
        found: torch.Tensor = self._head(states.to(self._head.weight.dtype)).float()
        return found

    def logits_of(self, states: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        """Logits of a few tokens at some positions: states [n, d] give float32 [n, len(tokens)].

        Summed in float64 in one order, so that they depend on their own state alone.
        """
        chosen = list(tokens)
        weights = self._head.weight[chosen].double()
        found = (states.double().unsqueeze(1) * weights.unsqueeze(0)).sum(-1)
        bias = getattr(self._head, "bias", None)
        return (found if bias is None else found + bias[chosen].double()).float()

    def tiles(self, tokens: Sequence[Sequence[int]], hidden: bool = False) -> Iterator[Tile]:
        """All texts, given by their token ids, in tiles, the longest first; the model's head is not
        run (see `logits`).

        `hidden`: the states in float32, as vectors are kept; else as the head takes them. Raises
        ValueError for a text longer than `max_tokens`.
        """
        import torch

        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        if len(lengths) and lengths.max() > self.max_tokens:
            raise ValueError(f"a text of {lengths.max()} tokens; at most {self.max_tokens} fit")
        buckets = [*(b for b in BUCKETS if b < self.max_tokens), self.max_tokens]
        bucket_of = np.searchsorted(buckets, lengths)
        for bucket in np.unique(bucket_of)[::-1]:
            rows = np.flatnonzero(bucket_of == bucket)
            length = buckets[bucket]
            size = max(1, TILE_TOKENS[self.device] // length)
            for start in range(0, len(rows), size):
                tile = rows[start : start + size]
                ids = np.zeros((size, length), dtype=np.int64)
                mask = np.zeros((size, length), dtype=np.int64)
                for line, row in enumerate(tile):
                    ids[line, : lengths[row]] = tokens[row]
                    mask[line, : lengths[row]] = 1
                on_device = torch.from_numpy(ids).to(self.device)
                with torch.inference_mode():
                    # No mask: to the right of a text, where it cannot look, lies all padding.
                    states = self._body(input_ids=on_device, use_cache=False).last_hidden_state
                    states = states.float() if hidden else states
                yield Tile(tile, on_device, torch.from_numpy(mask).to(self.device), states)
