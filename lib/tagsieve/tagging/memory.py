"""The embedded tagger as a Ray actor: an Arrow batch of queries in, their tags out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tagsieve.engines.encoders import (
    Dtype,
    SentenceEncoder,
    cpu_dtype,
    model_digest,
    packaged_minilm,
)
from tagsieve.engines.microbatch import FAILURE
from tagsieve.lake import TABLES, TAGS
from tagsieve.ledger import fingerprint
from tagsieve.tagging.bank import Bank, Prediction, bank_digest, read_card
from tagsieve.tagging.config import MemoryTaggerConfig

BUILTIN = Path(__file__).parent / "banks" / "builtin"


def bank_folders(config: MemoryTaggerConfig) -> list[str]:
    """Where the banks of a config lie."""
    return [str(BUILTIN if bank == "builtin" else Path(bank).expanduser()) for bank in config.banks]


def tagger_fingerprint(config: MemoryTaggerConfig) -> str:
    """The tagger's name and a hash of all that decides its answers: banks, encoder, precision."""
    folders = bank_folders(config)
    names = "-".join(read_card(folder).name for folder in folders)
    digests = [bank_digest(folder) for folder in folders]
    parts = ("memory", digests, model_digest(packaged_minilm()), _dtype(config))
    return f"memory-{names}-{fingerprint(*parts)[:12]}"


def _dtype(config: MemoryTaggerConfig) -> Dtype:
    return cpu_dtype() if config.dtype == "auto" else config.dtype


UNREADABLE = "unreadable"
"""Why a query is in quarantine: the encoder knows no word of it (all emoji, punctuation alone, a
script that its vocabulary leaves out)."""

TAGGED = TABLES["raw_tags"].schema.append(pa.field("failure", FAILURE))


class MemoryTagger:
    """Tags one Arrow batch. Reads `query_id`, `text`; gives the rows of `raw_tags` and `failure`.

    The encoder and the bank are loaded once per actor. A tag's explanation is its score.
    """

    def __init__(
        self, config: MemoryTaggerConfig, tagger: str, run_id: str, threads: int | None
    ) -> None:
        self._encoder = SentenceEncoder(packaged_minilm(), _dtype(config), threads)
        self._banks = [Bank.load(folder, self._encoder) for folder in bank_folders(config)]
        self._tagger, self._run_id = tagger, run_id
        self._readable = np.array(
            [
                any(map(str.isalnum, piece)) and not piece.startswith("[")
                for piece in self._encoder.vocabulary
            ]
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row per query, in the order of the batch."""
        texts = batch.column("text").to_pylist()
        encoded = self._encoder.encode_whole(texts)
        failures = [
            None if self._readable[ids].any() else self._unreadable(query_id, text)
            for query_id, text, ids in zip(
                batch.column("query_id").to_pylist(), texts, encoded.tokens, strict=True
            )
        ]
        answers = [bank.predict(encoded) for bank in self._banks]
        tags = [
            [{"tag": tag, "explanation": f"score {score:.2f}"} for tag, score in _joined(found)]
            for found in zip(*answers, strict=True)
        ]
        columns = {
            "query_id": batch.column("query_id"),
            "tagger": pa.array([self._tagger] * batch.num_rows, pa.string()),
            "tags": pa.array(tags, TAGS),
            "run_id": pa.array([self._run_id] * batch.num_rows, pa.string()),
            "failure": pa.array(failures, FAILURE),
        }
        return pa.table(columns, schema=TAGGED)

    def _unreadable(self, query_id: str, text: str) -> dict[str, str | bytes]:
        return {
            "key": quarantine_key(self._tagger, query_id),
            "reason": UNREADABLE,
            "error": "the encoder's vocabulary has no word of the query",
            "payload": text.encode(),
        }


def quarantine_key(tagger: str, query_id: str) -> str:
    """What a query of one tagger is called in `quarantine`."""
    return f"{tagger} {query_id}"


def _joined(predictions: Sequence[Prediction]) -> list[tuple[str, float]]:
    """Tags of all banks, each once with its best score; those of the first bank come first."""
    best: dict[str, float] = {}
    for found in predictions:
        for tag, score in zip(found.tags, found.scores, strict=True):
            best[tag] = max(score, best.get(tag, 0.0))
    return list(best.items())
