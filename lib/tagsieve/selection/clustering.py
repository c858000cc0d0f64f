"""k-means clusterings: centroids in a table, and the cluster of each content."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.handover import Parts, read_all
from tagsieve.engines.kmeans import ROWS_PER_CENTROID, kept_centroids, train
from tagsieve.engines.vector_rows import Bad, VectorRows, write_vectors
from tagsieve.engines.vectors import Array
from tagsieve.errors import RunError
from tagsieve.ledger import fingerprint
from tagsieve.selection.config import KMeansConfig, SemDedupConfig, StratifiedConfig
from tagsieve.selection.vector_strategies import started, unusable_rows
from tagsieve.selection.vector_workers import Assigner

Clustered = KMeansConfig | SemDedupConfig | StratifiedConfig
"""Selections that may need clusters."""

ASSIGNED = pa.schema(
    [("sample_id", pa.string()), ("cluster", pa.int64()), ("distance", pa.float64())]
)


def clustering_name(config: Clustered, encoder: str, kind: str) -> str:
    """The clustering's name in the tables: encoder, number of clusters, and a hash of the rest, the
    kind of the rows that train it among it."""
    rest = fingerprint(encoder, config.clusters, config.seed, config.iterations, kind)[:12]
    return f"{encoder}-k{config.clusters}-{rest}"


def clustered(
    context: Context, config: Clustered, encoder: str, kind: str, candidates: DataFrame
) -> tuple[DataFrame, DataFrame]:
    """`sample_id`, `cluster`, `distance` of candidates (`pool`, `sample_id`, `vector`), and those
    with unusable vectors (`pool`, `sample_id`, `reason`).

    The centroids are trained once, on at most `ROWS_PER_CENTROID` rows each, drawn by their ids,
    and stay in `centroids`; contents that are not in `clusters` yet go to the nearest, and are
    added to it. `kind`: what candidates these are; those of another kind have centroids of their
    own, so that these do not depend on which selection was made first.
    """
    lake, spark = context.lake, context.engines.spark
    name = clustering_name(config, encoder, kind)
    known = lake.read(spark, "clusters").where(F.col("clustering") == name)
    new = candidates.join(known.select("sample_id"), "sample_id", "left_anti")
    new = new.withColumn("score", F.lit(None).cast("double")).orderBy("sample_id", "pool")
    with context.console.spark_progress(spark, "select: vectors to assign"):
        rows = write_vectors(context, new, "unassigned")
    bad: list[Bad] = []
    if rows.count:
        centroids = kept_centroids(lake, name, lambda: _trained(context, config, rows, candidates))
        bad = _assign(context, config, name, rows, centroids)
    return (
        lake.read(spark, "clusters").where(F.col("clustering") == name),
        unusable_rows(context, rows, bad),
    )


def _trained(
    context: Context,
    config: Clustered,
    rows: VectorRows,
    candidates: DataFrame,
) -> Array:
    most = ROWS_PER_CENTROID * config.clusters
    drawn = F.xxhash64(F.lit(config.seed), "sample_id")
    vectors = candidates.where(F.size("vector") == rows.width).dropDuplicates(["sample_id"])
    vectors = vectors.select("sample_id", "vector").orderBy(drawn, "sample_id").limit(most)
    table = read_all(context, "training", vectors).sort_by("sample_id")
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix = np.ascontiguousarray(flat.reshape(table.num_rows, -1), dtype=np.float32)
    matrix = matrix[np.isfinite(matrix).all(axis=1)]
    if len(matrix) < config.clusters:
        raise RunError(
            f"select.clusters={config.clusters}: only {len(matrix):,} candidates have vectors; "
            "set it lower"
        )
    context.console.status(f"select: k-means, {config.clusters:,} of {len(matrix):,} vectors")
    return train(matrix, config.clusters, config.seed, config.iterations)


def _assign(
    context: Context,
    config: Clustered,
    name: str,
    rows: VectorRows,
    centroids: Array,
) -> list[Bad]:
    """Add the nearest centroids of rows to `clusters`; gives the unusable rows."""
    parts = Parts(context, "assigned", ASSIGNED)
    bad: list[Bad] = []
    progress = context.console.progress("select: nearest centroids", rows.count, "rows")
    with started(context, Assigner, [(rows, centroids)] * config.workers) as workers:
        calls = workers.in_order(rows.groups, lambda actor, group: actor.assign.remote(group))
        for group, (table, unusable) in calls:
            parts.add(table)
            bad.append(unusable)
            progress.advance(group.rows)
    assigned = parts.frame().dropDuplicates(["sample_id"])
    assigned = assigned.withColumn("clustering", F.lit(name))
    context.lake.insert_new(assigned, "clusters", {"clustering": name})
    return bad
