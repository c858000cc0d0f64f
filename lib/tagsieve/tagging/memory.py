"""The embedded tagger as a Ray actor: an Arrow batch of queries in, their tags out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tagsieve.engines.actors import Counts
from tagsieve.engines.encoders import (
    Dtype,
    SentenceEncoder,
    dtype_of,
    packaged_minilm,
)
from tagsieve.engines.microbatch import failure
from tagsieve.engines.models import model_digest
from tagsieve.ledger import fingerprint
from tagsieve.tagging.bank import Bank, Prediction, bank_digest, read_card
from tagsieve.tagging.config import MemoryTaggerConfig
from tagsieve.tagging.rows import tagged_rows

BUILTIN = Path(__file__).parent / "banks" / "builtin"


def bank_folders(config: MemoryTaggerConfig) -> list[str]:
    """Where the banks of a config lie."""
    return [str(BUILTIN if bank == "builtin" else Path(bank).expanduser()) for bank in config.banks]


def memory_fingerprint(config: MemoryTaggerConfig) -> str:
    """The tagger's name and a hash of all that decides its answers: banks, encoder, precision."""
    folders = bank_folders(config)
    names = "-".join(read_card(folder).name for folder in folders)
    digests = [bank_digest(folder) for folder in folders]
    parts = ("memory", digests, model_digest(packaged_minilm()), dtype_of(config.dtype))
    return f"memory-{names}-{fingerprint(*parts)[:12]}"


UNREADABLE = "unreadable"
"""Why a query is in quarantine: the encoder knows no word of it (all emoji, punctuation alone, a
script that its vocabulary leaves out)."""


class MemoryTagger:
    """A Ray actor. Reads `query_id`, `text`; gives the rows of `raw_tags` and `failure`.

    The encoder and the bank are loaded once. A tag's explanation is its score; a row's
    `confidence` is the F1 that its scores let expect (`expected_f1`).
    """

    def __init__(
        self,
        config: MemoryTaggerConfig,
        tagger: str,
        run_id: str,
        dtype: Dtype,
        threads: int | None,
    ) -> None:
        self._config, self._tagger, self._run_id = config, tagger, run_id
        self._dtype, self._threads = dtype, threads

    def start(self, counted: Counts) -> None:  # noqa: ARG002
        """Load the encoder and the banks."""
        config = self._config
        self._encoder = SentenceEncoder(packaged_minilm(), self._dtype, self._threads)
        self._banks = [Bank.load(folder, self._encoder) for folder in bank_folders(config)]
        self._readable = np.array(
            [
                any(map(str.isalnum, piece)) and not piece.startswith("[")
                for piece in self._encoder.vocabulary
            ]
        )

    def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """One row per query, in the order of the batch, and what was counted."""
        texts = batch["text"].to_pylist()
        encoded = self._encoder.encode_whole(texts)
        answers = [bank.predict(encoded) for bank in self._banks]
        ids = batch["query_id"].to_pylist()
        rows = []
        asked = zip(ids, texts, encoded.tokens, strict=True)
        for (query_id, text, tokens), *found in zip(asked, *answers, strict=True):
            if not self._readable[tokens].any():
                why = "the encoder's vocabulary has no word of the query"
                told = failure(self._tagger, query_id, UNREADABLE, why, text)
                rows.append({"query_id": query_id, "failure": told})
                continue
            tags = _joined(found)
            rows.append(
                {
                    "query_id": query_id,
                    "tags": [
                        {"tag": tag, "explanation": f"score {score:.2f}"} for tag, score in tags
                    ],
                    "confidence": expected_f1([score for _, score in tags], self.mean_tags),
                }
            )
        counts = {"model_calls": float(batch.num_rows)}
        return tagged_rows(self._tagger, self._run_id, rows), counts

    @property
    def mean_tags(self) -> float:
        """Tags of an example of the (first) bank: how many a query has, for all that is known."""
        return self._banks[0].mean_tags


def expected_f1(chances: Sequence[float], mean_tags: float) -> float:
    """The F1 to expect of tags with these chances to be right, of a query with `mean_tags` tags."""
    return 2 * sum(chances) / (len(chances) + mean_tags)


def _joined(predictions: Sequence[Prediction]) -> list[tuple[str, float]]:
    """Tags of all banks, each once with its best score; those of the first bank come first."""
    best: dict[str, float] = {}
    for found in predictions:
        for tag, score in zip(found.tags, found.scores, strict=True):
            best[tag] = max(score, best.get(tag, 0.0))
    return list(best.items())
