"""The strategies by vectors: rows that lie in order in files, actors that read them, and what is
decided between."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.handover import Parts
from tagsieve.engines.vector_rows import COLUMNS, Bad, VectorRows, write_vectors
from tagsieve.engines.vectors import Array
from tagsieve.engines.workers import Workers
from tagsieve.selection.config import KCenterConfig, ReprFilterConfig, SemDedupConfig
from tagsieve.selection.kcenter import Farthest, k_center
from tagsieve.selection.outcome import CHOSEN, REFUSED, UNUSABLE, Outcome, ranked
from tagsieve.selection.repr_filter import ReprFilter
from tagsieve.selection.vector_workers import KEYS, Deduper, Measurer, Passed, Refuser

if TYPE_CHECKING:
    from ray import ObjectRef

NEAREST_ROWS = 8192
"""Taken rows whose most alike one is looked up between two signs of progress."""


def repr_filter(
    context: Context, config: ReprFilterConfig, candidates: DataFrame, name: str
) -> Outcome:
    """DEITA's filter over candidates (`pool`, `sample_id`, `score`, `vector`), which other
    selections of this run may have sorted under this `name`.

    Actors leave out what the rows taken before refuse, a few groups ahead; what is left is decided
    here, group after group. Here and in each actor there are the vectors of the rows taken.
    """
    import ray

    rows = _sorted(context, candidates, F.desc("score"), name=name)
    made = ReprFilter(config.tau, config.size)
    parts: list[ObjectRef[Array]] = []
    positions: list[Array] = []
    bad: list[Bad] = []
    progress = context.console.progress("select: repr filter", rows.count, "rows")
    with started(context, Refuser, [(rows, config.tau)] * config.workers) as workers:
        # While there is room, so that no group is looked at for nothing.
        groups = (group for group in rows.groups if not made.full)
        for group, found in workers.in_order(
            groups, lambda actor, group: actor.passed.remote(group, parts)
        ):
            if made.full:
                break
            assert isinstance(found, Passed)
            chosen = made.decide(found.vectors, found.known)
            bad.append(found.bad)
            if len(chosen):
                parts.append(ray.put(found.vectors[chosen]))
                positions.append(found.positions[chosen])
            progress.advance(group.rows)
        taken = np.concatenate([np.empty(0, dtype=np.int64), *positions])
        end = int(taken[-1]) + 1 if made.full else rows.count
        unusable = [each.between(0, end) for each in bad]
        too_alike = end - len(taken) - sum(len(each.positions) for each in unusable)
        chosen_rows = _taken_rows(context, rows, taken, made)
        refused = None
        if config.explain:
            told = workers.in_order(
                [group for group in rows.groups if group.first < end],
                lambda actor, group: actor.nearest.remote(group, parts, taken, end),
            )
            refused = _refused(context, (table for _, table in told), chosen_rows, too_alike)
    return Outcome(
        _frame(context, "chosen", CHOSEN, chosen_rows),
        refused,
        {"too_alike": too_alike} if too_alike else {},
        unusable_rows(context, rows, unusable),
    )


def _taken_rows(context: Context, rows: VectorRows, taken: Array, made: ReprFilter) -> pa.Table:
    """`CHOSEN` of the rows that the filter took."""
    vectors = made.taken.vectors().full.cpu().numpy() if len(taken) else np.empty((0, 0))
    progress = context.console.progress("select: most alike taken rows", len(taken), "rows")
    nearest, similarity = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for start in range(0, len(taken), NEAREST_ROWS):
        part = vectors[start : start + NEAREST_ROWS]
        before = np.arange(start, start + len(part))
        found, alike = made.taken.nearest(part, before)
        nearest.append(found)
        similarity.append(alike)
        progress.advance(len(part))
    places = np.concatenate(nearest)
    alike = np.concatenate(similarity)
    table = rows.at(taken, list(COLUMNS))
    # The first row taken has none.
    names = table["sample_id"].take(pa.array(places, mask=places < 0))
    reasons = ["first" if place < 0 else "not_alike" for place in places]
    return (
        table.append_column("rank", pa.array(np.arange(len(taken))))
        .append_column("reason", pa.array(reasons, pa.string()))
        .append_column("nearest", names)
        .append_column("similarity", pa.array(alike, from_pandas=True))
    )


def _refused(
    context: Context, tables: Iterable[pa.Table], chosen: pa.Table, count: int
) -> DataFrame:
    """`REFUSED` of tables that name the most alike taken row by its rank."""
    progress = context.console.progress("select: why rows were refused", count, "rows")
    parts = Parts(context, "refused", REFUSED)
    for table in tables:
        progress.advance(table.num_rows)
        names = chosen["sample_id"].take(table["rank"])
        reasons = pa.array(["too_alike"] * table.num_rows, pa.string())
        parts.add(table.append_column("nearest", names).append_column("reason", reasons))
    return parts.frame()


def kcenter(context: Context, config: KCenterConfig, candidates: DataFrame, name: str) -> Outcome:
    """Greedy k-center over candidates (`pool`, `sample_id`, `vector`), which other selections of
    this run may have sorted under this `name`.

    Each actor holds its share of the vectors; the centres and the farthest rows are here.
    """
    import ray

    unscored = candidates.withColumn("score", F.lit(None).cast("double"))
    rows = _sorted(context, unscored, name=name)
    shares = [(rows, groups) for groups in rows.shares(config.workers) if groups]
    if not shares:
        return Outcome(_frame(context, "chosen", CHOSEN, CHOSEN.empty_table()))
    with started(context, Measurer, shares) as workers:
        context.console.status(f"select: loading {rows.count:,} vectors")
        usable = [workers.result(ref) for ref in [a.usable.remote() for a in workers.actors]]
        positions = np.concatenate([found for found, _ in usable])
        bad = [each for _, found in usable for each in found]
        picked: list[tuple[int, float]] = []
        if len(positions):
            place = int(np.random.default_rng(config.seed).integers(len(positions)))
            first = int(positions[place])
            owner = np.searchsorted(np.cumsum([len(found) for found, _ in usable]), place, "right")
            vector = workers.result(workers.actors[owner].vector.remote(first))
            parts: list[ObjectRef[Any]] = []

            def advance(centres: Array, taken: Sequence[int], count: int) -> list[Farthest]:
                parts.append(ray.put((centres, list(taken))))
                calls = [actor.advance.remote(parts, count) for actor in workers.actors]
                return [workers.result(ref) for ref in calls]

            size = min(config.size, len(positions))
            progress = context.console.progress("select: k-center", size, "rows")
            for found in k_center(advance, first, vector, size):
                picked += found
                progress.advance(len(found))
    table = rows.at(np.array([number for number, _ in picked], dtype=np.int64), KEYS)
    distances = pa.array([distance for _, distance in picked], pa.float64(), from_pandas=True)
    reasons = ["first" if n == 0 else "farthest" for n in range(len(picked))]
    table = (
        table.append_column("rank", pa.array(range(len(picked)), pa.int64()))
        .append_column("score", distances)
        .append_column("reason", pa.array(reasons, pa.string()))
    )
    return Outcome(
        _frame(context, "chosen", CHOSEN, _filled(table, CHOSEN)),
        unusable=unusable_rows(context, rows, bad),
    )


def semdedup(
    context: Context,
    config: SemDedupConfig,
    candidates: DataFrame,
    clusters: DataFrame,
    unusable: DataFrame,
) -> Outcome:
    """SemDeDup over candidates (`pool`, `sample_id`, `score`, `vector`), within `clusters`
    (`sample_id`, `cluster`); `unusable`: candidates that are in none.

    A row is removed when a better one that is kept, of its cluster, is more alike than the
    threshold: each removed row has a kept twin. An actor holds the vectors of a cluster, or of
    small ones that make up a group.
    """
    placed = candidates.join(clusters, "sample_id")
    counts = placed.groupBy("cluster").count().orderBy("cluster").collect()
    rows = _sorted(context, placed, "cluster", F.desc("score"))
    bounds = np.cumsum([0, *(row["count"] for row in counts)])
    kept, removed = Parts(context, "kept", _KEPT), Parts(context, "refused", REFUSED)
    bad: list[Bad] = []
    progress = context.console.progress("select: near-duplicates", rows.count, "rows")
    arguments = [(rows, config.threshold, config.explain)] * config.workers
    tasks = list(_runs(bounds, max((group.rows for group in rows.groups), default=1)))
    with started(context, Deduper, arguments) as workers:
        for task, found in workers.in_order(tasks, lambda actor, task: actor.kept.remote(task)):
            kept.add(found.kept)
            bad += found.bad
            if found.removed is not None:
                reasons = pa.array(["near_duplicate"] * found.removed.num_rows, pa.string())
                removed.add(found.removed.append_column("reason", reasons))
            progress.advance(int(task[-1] - task[0]))
    count = rows.count - kept.rows - sum(len(each.positions) for each in bad)
    chosen = ranked(kept.frame(), config.size, F.desc("score"), "sample_id", "pool")
    return Outcome(
        chosen.withColumn("reason", F.lit("no_better_duplicate")),
        removed.frame() if config.explain else None,
        {"near_duplicate": count} if count else {},
        unusable.unionByName(unusable_rows(context, rows, bad)),
    )


_KEPT = pa.schema(list(COLUMNS.items()))


def _runs(bounds: Array, rows: int) -> Iterator[Array]:
    """Neighbouring clusters by their bounds, of about `rows` rows together."""
    start = 0
    for place in range(1, len(bounds)):
        if bounds[place] - bounds[start] >= rows or place == len(bounds) - 1:
            yield bounds[start : place + 1]
            start = place


def _sorted(
    context: Context, candidates: DataFrame, *order: Any, name: str | None = None
) -> VectorRows:
    """The candidates in an order, ties by sample id and pool, where workers read them; not again
    where there are some of this `name`."""
    started = time.monotonic()
    with context.console.spark_progress(context.engines.spark, "select: vectors in order"):
        ordered = candidates.orderBy(*order, "sample_id", "pool")
        rows = write_vectors(context, ordered, name or "vectors", again=name is None)
    context.run.metrics["sort_seconds"] = round(time.monotonic() - started, 3)
    return rows


def started(context: Context, cls: type, arguments: list[tuple[Any, ...]]) -> Workers:
    """Ray actors of a selection, with Ray started if need be."""
    context.engines.ray()
    return Workers(cls, arguments, context.engines.ray_config, "select")


def _frame(context: Context, name: str, schema: pa.Schema, table: pa.Table) -> DataFrame:
    parts = Parts(context, name, schema)
    parts.add(table)
    return parts.frame()


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with null columns for those of the schema that it lacks."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field.name, pa.nulls(table.num_rows, field.type))
    return table


def unusable_rows(context: Context, rows: VectorRows, bad: Sequence[Bad]) -> DataFrame:
    """`UNUSABLE` of rows by their positions."""
    parts = Parts(context, "unusable", UNUSABLE)
    for each in bad:
        if len(each.positions):
            reasons = pa.array(each.reasons, pa.string())
            parts.add(rows.at(each.positions, KEYS).append_column("reason", reasons))
    return parts.frame()
