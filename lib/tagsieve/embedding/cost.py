"""What embedding would cost, before anything runs: conversations and time. Starts no engine."""

from __future__ import annotations

from dataclasses import dataclass

from tagsieve.embedding.config import EmbedConfig
from tagsieve.embedding.encoders import encoder_fingerprint
from tagsieve.lake import Lake

TYPICAL_RATE = 250.0
"""Instructions per second of the packaged encoder on two cores."""


@dataclass(frozen=True)
class EmbedCost:
    """`samples`: to be embedded, at most; `seconds`: None where nothing tells."""

    samples: int
    seconds: float | None
    told: str


def embed_cost(lake: Lake, config: EmbedConfig, rows: int) -> EmbedCost:
    """The cost of embedding those of `rows` samples that have no vector of this encoder.

    Time is that of this encoder's own run in the lake, where there is one. Raises UsageError when
    the model cannot be used.
    """
    encoder = encoder_fingerprint(config)
    table = lake.delta("embeddings")
    done = 0
    if table is not None:
        done = table.to_pyarrow_dataset(partitions=[("encoder", "=", encoder)]).count_rows()
    pending = max(rows - done, 0)
    packaged = config.model is None and config.text == "instruction"
    rate = _measured(lake, encoder) or (TYPICAL_RATE if packaged else None)
    told = f"at most {pending:,} calls of {encoder.rpartition('-')[0]}"
    if rate is None:
        told += "; no run of this encoder yet to tell the time from: try --limit 2000"
    return EmbedCost(pending, pending / rate if rate else None, told)


def _measured(lake: Lake, encoder: str) -> float | None:
    """Conversations per second in a run that wrote rows of this encoder."""
    run_id = lake.run_of("embeddings", "encoder", encoder)
    rows = lake.arrow("runs", filters=[("run_id", "=", run_id)]).to_pylist() if run_id else []
    for row in rows:
        metrics = dict(row["metrics"] or [])
        if row["step"] == "embed" and metrics.get("model_calls"):
            spent = metrics["seconds"] - metrics.get("engine_start_seconds", 0.0)
            return float(metrics.get("rows_per_second") or row["kept"] / max(spent, 0.1))
    return None
