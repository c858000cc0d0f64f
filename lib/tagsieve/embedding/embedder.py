"""The encoder as a Ray actor: an Arrow batch of turns in, their vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from jinja2 import TemplateError

from tagsieve.embedding.config import EmbedConfig, SentenceEmbedConfig
from tagsieve.embedding.encoders import (
    dtype_of,
    encoder_fingerprint,
    folder_of,
    longest_of,
    pooling_of,
    template_of,
)
from tagsieve.embedding.texts import as_text, fitted
from tagsieve.engines.actors import ActorSpec, Counts, chunks_of
from tagsieve.engines.causal import CausalLM
from tagsieve.engines.config import RayConfig
from tagsieve.engines.context import Context
from tagsieve.engines.conversations import Turns
from tagsieve.engines.encoders import (
    Array,
    Dtype,
    Pooling,
    SentenceEncoder,
    buckets_to,
    last_state,
    mean_state,
)
from tagsieve.engines.llm.replies import ENGINE_DIED
from tagsieve.engines.microbatch import FAILURE, failure
from tagsieve.engines.pending import started
from tagsieve.engines.ray import check_precision, gpus_of_each, share_of_cores
from tagsieve.lake import TABLES, TURNS

CHUNK_ROWS = {"sentence": 2048, "causal": 512}
"""Texts of one chunk: enough to fill tiles, few enough that their vectors are some 10 MB."""

EMBEDDED = TABLES["embeddings"].schema.append(pa.field("failure", FAILURE))

Fault = tuple[str, str]
"""Why a text has no vector: the reason of its quarantine, and what is to be said of it."""


class Embedder:
    """A Ray actor. Reads `sample_id`, `turns`; gives the rows of `embeddings` and `failure`.

    Texts that stand more than once in a batch are encoded once.
    """

    def __init__(
        self,
        config: EmbedConfig,
        encoder: str,
        run_id: str,
        dtype: Dtype,
        threads: int | None,
        gpu: bool,
    ) -> None:
        self._config, self._dtype, self._threads, self._gpu = config, dtype, threads, gpu
        self._encoder, self._run_id = encoder, run_id
        self._template = template_of(config)

    def start(self, counted: Counts) -> None:  # noqa: ARG002
        """Load the model."""
        config, folder = self._config, folder_of(self._config)
        pooling, device = pooling_of(config, folder), "cuda" if self._gpu else "cpu"
        self._model: SentenceEncoder | CausalLM
        if isinstance(config, SentenceEmbedConfig):
            self._model = SentenceEncoder(
                folder,
                self._dtype,
                self._threads,
                buckets_to(longest_of(config, folder)),
                device,
                pooling,
            )
            self._encode = self._model.encode_tokens
        else:
            self._model = CausalLM(folder, self._dtype, self._threads, config.max_tokens, device)
            self._encode = partial(causal_vectors, self._model, pooling)

    def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """One row per conversation, in the order of the batch, and what was counted."""
        told = [self._text(turns) for turns in batch["turns"].to_pylist()]
        texts = list(dict.fromkeys(text for text, fault in told if fault is None))
        found = self._encoded(texts)
        place = {text: number for number, text in enumerate(texts)}
        places, failures = [], []
        for sample_id, (text, fault) in zip(batch["sample_id"].to_pylist(), told, strict=True):
            fault = fault or found.faults.get(text)
            places.append(-1 if fault else place[text])
            failures.append(failure(self._encoder, sample_id, *fault, text) if fault else None)
        tokens, vectors = found.tokens[places], found.vectors[places]
        ends = np.arange(len(places) + 1, dtype=np.int32) * self._model.dimension
        rows = {
            "sample_id": batch["sample_id"],
            "encoder": [self._encoder] * len(places),
            "vector": pa.ListArray.from_arrays(ends, vectors.ravel()),
            "tokens": tokens,
            "truncated": tokens > self._model.max_tokens,
            "run_id": [self._run_id] * len(places),
            "failure": pa.array(failures, FAILURE),
        }
        counts = {"model_calls": float(found.encoded)}
        return pa.table(rows).select(EMBEDDED.names).cast(EMBEDDED), counts

    def _text(self, turns: Turns) -> tuple[str, Fault | None]:
        """The text of some turns, or what they say and why they have none."""
        try:
            text = as_text(turns, self._template, self._model.tokenizer)
        except TemplateError as error:
            said = as_text(turns, "plain", None)
            return said, ("template", f"the model's chat template refuses the turns: {error}")
        return text, None if text else ("no_text", "no turn of it says anything")

    def _encoded(self, texts: Sequence[str]) -> _Found:
        """Tokens and vectors of distinct texts, and why some have none."""
        longest, faults = self._model.max_tokens, dict[str, Fault]()
        vectors = np.zeros((len(texts) + 1, self._model.dimension), dtype=np.float32)
        if not texts:
            return _Found(np.zeros(1, dtype=np.int64), vectors, faults, 0)
        tokens, counts = fitted(self._model.tokenizer, texts, longest, self._template != "chat")
        for text, count in zip(texts, counts, strict=True):
            if not count:
                faults[text] = ("no_text", "the model's tokenizer has no token for it")
            elif count > longest and self._config.overlong == "quarantine":
                faults[text] = ("overlong", f"{count} tokens, of which {longest} fit")
        kept = [place for place, text in enumerate(texts) if text not in faults]
        vectors[kept] = self._encode([tokens[place] for place in kept])
        norms = np.linalg.norm(vectors[kept].astype(np.float64), axis=1)
        for place, norm in zip(kept, norms, strict=True):
            if not np.isfinite(norm):
                faults[texts[place]] = ("nan_vector", "the model's vector is not finite")
            elif not norm:
                faults[texts[place]] = ("zero_vector", "the model's vector is zero")
        return _Found(np.array([*counts, 0], dtype=np.int64), vectors, faults, len(kept))


@dataclass(frozen=True)
class _Found:
    """What became of n distinct texts: how many tokens they have, int64 [n + 1], their vectors,
    float32 [n + 1, d] (the last ones, which are zero, for rows without any), why some have none,
    and how many were encoded."""

    tokens: Array
    vectors: Array
    faults: dict[str, Fault]
    encoded: int


def causal_vectors(model: CausalLM, pooling: Pooling, tokens: list[list[int]]) -> Array:
    """Last-layer states of texts, pooled, as they are: float32 [len(tokens), model.dimension]."""
    pool = mean_state if pooling == "mean" else last_state
    vectors = np.empty((len(tokens), model.dimension), dtype=np.float32)
    for tile in model.tiles(tokens, hidden=True):
        pooled = pool(tile.states, tile.mask.float())
        vectors[tile.rows] = pooled.cpu().numpy()[: len(tile.rows)]
    return vectors


def killed_by(encoder: str, run_id: str, row: pa.Table, error: str) -> pa.Table:
    """The result for a conversation of which the model's process dies."""
    told = row.to_pylist()[0]
    text = as_text(told["turns"], "plain", None)
    failed = {
        "sample_id": told["sample_id"],
        "encoder": encoder,
        "run_id": run_id,
        "failure": failure(encoder, told["sample_id"], ENGINE_DIED, error, text),
    }
    return pa.Table.from_pylist([failed], schema=EMBEDDED)


def actors_of(config: EmbedConfig, encoder: str, run_id: str, ray_config: RayConfig) -> ActorSpec:
    """The actors of an encoder; Ray must have been started. Raises RunError as `check_precision`
    does."""
    gpus = gpus_of_each(config.replicas, config.gpus_per_replica)
    dtype = dtype_of(config)
    check_precision("embed.dtype", config.dtype, dtype, gpus)
    cpus = config.cpus_per_replica or (1 if gpus else share_of_cores(ray_config, config.replicas))
    rows = CHUNK_ROWS[config.kind]
    chunk, chunks = chunks_of(config.commit_rows, rows, 2 * rows)
    return ActorSpec(
        Embedder,
        {
            "config": config,
            "encoder": encoder,
            "run_id": run_id,
            "dtype": dtype,
            "threads": None if gpus else cpus,
            "gpu": bool(gpus),
        },
        killed_by=partial(killed_by, encoder, run_id),
        label="embed",
        replicas=config.replicas,
        cpus=cpus,
        gpus=gpus,
        chunk_rows=chunk,
        in_flight=chunks,
        restarts=config.restarts,
    )


def encode_texts(config: EmbedConfig, context: Context, texts: Sequence[str]) -> Array:
    """The vectors that the step embed would give to instructions of these texts, in their order:
    float32 [len(texts), d], zero for one that has none. By Ray actors, which end then."""
    context.engines.ray()
    run = context.run
    spec = actors_of(config, encoder_fingerprint(config), run.run_id, context.engines.ray_config)
    turns = [[{"role": "user", "content": text}] for text in texts]
    numbers = [str(number) for number in range(len(texts))]
    table = pa.table({"sample_id": numbers, "turns": pa.array(turns, TURNS)})
    starts = range(0, table.num_rows, spec.chunk_rows)
    chunks = (table.slice(start, spec.chunk_rows) for start in starts)
    made: dict[int, list[float]] = {}
    with started(spec, run) as pool:
        for rows in pool.map(chunks, context.console.status):
            made |= {
                int(row["sample_id"]): row["vector"]
                for row in rows.select(["sample_id", "vector", "failure"]).to_pylist()
                if row["failure"] is None
            }
    width = max(map(len, made.values()), default=0)
    vectors = np.zeros((len(texts), width), dtype=np.float32)
    for number, vector in made.items():
        vectors[number] = vector
    return vectors
