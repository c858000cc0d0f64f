"""The rows that are nearest to the conversations of a target, by Ray actors, exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from tagsieve.engines.context import Context
from tagsieve.engines.handover import Parts
from tagsieve.engines.vector_rows import Bad, Group, VectorRows, write_vectors
from tagsieve.engines.vectors import (
    AT_ONCE,
    ROUNDING,
    Array,
    Products,
    narrow_dtype,
    on_device,
    products,
    similarities,
)
from tagsieve.engines.workers import Workers
from tagsieve.errors import RunError
from tagsieve.selection.config import MatchTargetConfig
from tagsieve.selection.outcome import CHOSEN
from tagsieve.selection.vector_strategies import unusable_rows
from tagsieve.selection.vector_workers import KEYS

if TYPE_CHECKING:
    from ray import ObjectRef


def nearest_rows(
    context: Context, config: MatchTargetConfig, left: DataFrame, target: DataFrame, size: int
) -> tuple[DataFrame, DataFrame]:
    """Up to `size` rows of `left` (`pool`, `sample_id`, `vector`) that are nearest to the target
    (`sample_id`, `vector`), as `CHOSEN`, and the rows that cannot be compared, as `UNUSABLE`.

    A row is taken at its best place in the lists of the target's conversations, of equal places at
    the one that is more alike, and of these at the conversation with the least id: `nearest`. The
    driver holds the vectors and the lists of the target, an actor the vectors and one group of rows
    more. Raises RunError when the target has no vector.
    """
    spark = context.engines.spark
    with context.console.spark_progress(spark, "select: vectors in order"):
        rows = write_vectors(context, left.orderBy("sample_id", "pool"), "vectors", KEYS)
        aims = write_vectors(context, target.orderBy("sample_id"), "targets", ("sample_id",))
    positions, wanted = _usable(aims)
    context.run.metrics["target_without_vector"] = float(aims.count - len(positions))
    if not len(positions):
        raise RunError(
            "select.strategy=match_target: no conversation of the target has a vector; run the "
            "step embed, or set select.by to [tags]"
        )
    lists = Lists(len(wanted), config.neighbours)
    bad: list[Bad] = []
    context.engines.ray()
    arguments = [(rows, wanted, config.neighbours)] * config.workers
    progress = context.console.progress("select: neighbours", rows.count, "rows")

    def search(actor: Any, group: Group) -> ObjectRef[Any]:
        return actor.nearest.remote(group, lists.bounds)  # type: ignore[no-any-return]

    with Workers(TargetSearch, arguments, context.engines.ray_config, "select") as workers:
        for group, (pairs, of_group) in workers.in_order(rows.groups, search):
            lists.add(*pairs)
            bad.append(of_group)
            progress.advance(group.rows)
    taken, of, place, alike = lists.by_place(size)
    names = aims.at(positions, ["sample_id"])["sample_id"]
    table = rows.at(taken, KEYS)
    table = (
        table.append_column("rank", pa.array(np.arange(len(taken))))
        .append_column("score", pa.nulls(len(taken), pa.float64()))
        .append_column("reason", pa.array([f"neighbour {n + 1}" for n in place], pa.string()))
        .append_column("nearest", names.take(pa.array(of)))
        .append_column("similarity", pa.array(alike))
    )
    parts = Parts(context, "neighbours", CHOSEN)
    parts.add(table)
    return parts.frame(), unusable_rows(context, rows, bad)


def _usable(rows: VectorRows) -> tuple[Array, Array]:
    """Positions and vectors of all usable rows."""
    found = [rows.vectors(group)[:2] for group in rows.groups]
    if not found:
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    return np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found])


class Lists:
    """The `k` most alike rows of each of `count` vectors, in order: by similarity, then position.

    Which they are does not depend on the order in which pairs are added.
    """

    def __init__(self, count: int, k: int) -> None:
        self._k = k
        self._of, self._at = np.empty(0, np.int64), np.empty(0, np.int64)
        self._alike = np.empty(0)
        self.bounds = np.full(count, -np.inf)
        """What a row must be alike at least to be in a list, float64 [count]."""

    def add(self, of: Array, at: Array, alike: Array) -> None:
        """Add pairs: vectors `of`, rows `at` positions, their similarities."""
        self._of, self._at, self._alike = first_of_each(
            np.concatenate([self._of, of]),
            np.concatenate([self._at, at]),
            np.concatenate([self._alike, alike]),
            self._k,
        )
        places = _places(self._of)
        last = places == self._k - 1
        self.bounds = self.bounds.copy()
        self.bounds[self._of[last]] = self._alike[last]

    def by_place(self, size: int) -> tuple[Array, Array, Array, Array]:
        """The first `size` rows, each once: positions, vectors, places in their lists, similarities
        (int64, int64, int64, float64)."""
        places = _places(self._of)
        order = np.lexsort((self._of, -self._alike, places, self._at))
        _, first = np.unique(self._at[order], return_index=True)
        best = order[first]
        order = np.lexsort((self._at[best], -self._alike[best], places[best]))
        best = best[order][:size]
        return self._at[best], self._of[best], places[best], self._alike[best]


def first_of_each(of: Array, at: Array, alike: Array, k: int) -> tuple[Array, Array, Array]:
    """Of pairs, the `k` first of each vector, by similarity, then position, in this order."""
    order = np.lexsort((at, -alike, of))
    of, at, alike = of[order], at[order], alike[order]
    kept = _places(of) < k
    return of[kept], at[kept], alike[kept]


def _places(of: Array) -> Array:
    """The place of each element of a sorted array among its equals."""
    first = np.searchsorted(of, of)
    places: Array = np.arange(len(of)) - first
    return places


class TargetSearch:
    """A Ray actor: of the vectors of a target, the `k` most alike rows of a group.

    Holds those vectors, float32 [m, d], and the group's.
    """

    def __init__(self, rows: VectorRows, wanted: Array, k: int, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._rows, self._wanted, self._k = rows, wanted, k
        self._products = Products(narrow_dtype())
        self._units = self._products.units(wanted)

    def nearest(self, group: Group, bounds: Array) -> tuple[tuple[Array, Array, Array], Bad]:
        """Pairs of vectors and positions of rows (int64) with their exact cosine similarities
        (float64), those under the `bounds` of their vector (float64 [m]) left out; and the rows
        that cannot be compared.

        Products in low precision find what might be among the `k` first: what is at least as alike
        as the k-th by them, less twice what they may be off.
        """
        import torch

        positions, vectors, bad = self._rows.vectors(group)
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        if len(positions):
            with torch.inference_mode():
                units = self._products.units(vectors)
                step = max(1, AT_ONCE[self._products.device] // len(positions))
                for start in range(0, len(self._wanted), step):
                    part = slice(start, start + step)
                    rough = products(self._units[part], units).float()
                    least = self._least(rough, bounds[part])
                    i, j = (side.cpu().numpy() for side in (rough >= least).nonzero(as_tuple=True))
                    i += start
                    alike = similarities(self._wanted, vectors, i, j)
                    in_reach = alike >= bounds[i]
                    pairs = (i[in_reach], positions[j[in_reach]], alike[in_reach])
                    found.append(first_of_each(*pairs, self._k))
        of, at, alike = (np.concatenate(column) for column in zip(*found, strict=True))
        return (of, at, alike), bad

    def _least(self, rough: Any, bounds: Array) -> Any:
        """Least products that may yet count, [n, 1] on the device."""
        import torch

        margin = self._products.margin
        k = min(self._k, rough.shape[1])
        kth = rough.topk(k, dim=1).values[:, -1:] - 2 * margin
        # Nothing is less alike than -1; an infinite bound would stay one.
        known = np.maximum(bounds, -2.0) - margin - ROUNDING
        return torch.maximum(kth, on_device(known.astype(np.float32)[:, None]))
