"""Questions of test sets among the samples by vectors: exact cosine similarities, by Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.vector_rows import Group, VectorRows, write_vectors
from tagsieve.engines.vectors import (
    ROUNDING,
    Array,
    Products,
    products,
    similarities,
)
from tagsieve.engines.workers import Workers
from tagsieve.errors import RunError

if TYPE_CHECKING:
    from ray import ObjectRef

SIMILAR = pa.schema(
    [
        ("sample_id", pa.string()),
        ("test_set", pa.string()),
        ("question", pa.int64()),
        ("similarity", pa.float64()),
    ]
)

_AT_ONCE = 4_000_000
"""Products made at a time."""


@dataclass(frozen=True)
class QuestionEncoder:
    """The encoder of the step embed: its `fingerprint`, and `encode`, which gives the vectors of
    texts in their order, float32 [n, d] (zero where a text has none)."""

    fingerprint: str
    encode: Callable[[Context, Sequence[str]], Array]


def similar_questions(
    context: Context,
    threshold: float,
    encoder: QuestionEncoder,
    samples: DataFrame,
    questions: pa.Table,
) -> DataFrame:
    """Contents whose vector is at least as like one of a question: `SIMILAR`.

    Reads `sample_id` of `samples`. Contents without a vector of the encoder are not compared; the
    metric `without_vector` says how many. The vectors of the questions are in the driver and in the
    actor. Raises RunError when no content has a vector.
    """
    contents = samples.select("sample_id").distinct()
    vectors = context.pinned("embeddings").where(F.col("encoder") == encoder.fingerprint)
    found = contents.join(vectors.select("sample_id", "vector"), "sample_id")
    with context.console.spark_progress(context.engines.spark, "screen: vectors"):
        rows = write_vectors(context, found, "question-vectors", ("sample_id",))
        context.run.metrics["without_vector"] = float(contents.count() - rows.count)
    if not rows.count:
        raise RunError(
            f"screen.embedding: no content has a vector of {encoder.fingerprint}; run the step "
            "embed first, or set screen.embedding to null"
        )
    asked = encoder.encode(context, questions["text"].to_pylist())
    usable = np.flatnonzero(np.isfinite(asked).all(axis=1) & asked.any(axis=1))
    return _compared(context, threshold, rows, questions.take(pa.array(usable)), asked[usable])


def _compared(
    context: Context, threshold: float, rows: VectorRows, questions: pa.Table, asked: Array
) -> DataFrame:
    context.engines.ray()
    parts = [SIMILAR.empty_table()]
    progress = context.console.progress("screen: similar questions", rows.count, "samples")
    arguments = [(rows, asked, threshold)]
    config = context.engines.ray_config
    with Workers(QuestionSearch, arguments, config, "screen", "screen.embedding") as workers:
        for group, (ids, places, alike) in workers.in_order(rows.groups, _search):
            of = questions.select(["test_set", "question"]).take(pa.array(places))
            columns = [pa.array(ids, pa.string()), *of.columns, pa.array(alike)]
            parts.append(pa.table(columns, names=SIMILAR.names).cast(SIMILAR))
            progress.advance(group.rows)
    return context.engines.spark.createDataFrame(pa.concat_tables(parts))


def _search(actor: Any, group: Group) -> ObjectRef[Any]:
    return actor.similar.remote(group)  # type: ignore[no-any-return]


class QuestionSearch:
    """A Ray actor: which rows of a group of vectors are at least `threshold` like a question.

    Holds the vectors of the questions, float32 [m, d], and those of one group at a time.
    """

    def __init__(self, rows: VectorRows, asked: Array, threshold: float, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._rows, self._asked, self._threshold = rows, asked, threshold
        self._products = Products()
        self._units = self._products.units(asked) if len(asked) else None

    def similar(self, group: Group) -> tuple[list[str], Array, Array]:
        """Sample ids, places of questions (int64) and exact cosine similarities (float64) of the
        pairs of a group."""
        import torch

        ids = self._rows.read(group, ["sample_id"])["sample_id"].to_pylist()
        positions, vectors, _ = self._rows.vectors(group)
        found: list[tuple[Array, Array, Array]] = []
        step = max(1, _AT_ONCE // max(len(self._asked), 1))
        with torch.inference_mode():
            for start in range(0, len(vectors), step):
                if self._units is None:
                    break
                part = vectors[start : start + step]
                rough = products(self._products.load(part).units, self._units).float()
                near = rough >= self._threshold - self._products.margin
                i, j = (side.cpu().numpy() for side in near.nonzero(as_tuple=True))
                alike = similarities(part, self._asked, i, j)
                close = alike >= self._threshold - ROUNDING
                found.append((positions[start + i[close]] - group.first, j[close], alike[close]))
        empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        rows, places, similarity = (
            np.concatenate(each) for each in zip(empty, *found, strict=True)
        )
        return [ids[row] for row in rows], places, similarity
