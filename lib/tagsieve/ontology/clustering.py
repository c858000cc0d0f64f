"""The cluster step (TACOS, section III.A): tags in groups by their vectors, conversations in groups
by their tags.

Of a conversation whose tags are in several clusters the paper says only that it is reassigned; here
it goes to the cluster of most of its tags, of several to the nearest one.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.handover import Parts, read_all, read_chunks, write_rows
from tagsieve.engines.kmeans import ROWS_PER_CENTROID, Centroids, kept_centroids, train
from tagsieve.engines.turns import first_human_text
from tagsieve.engines.vectors import ROUNDING, Array, exact_products
from tagsieve.errors import RunError
from tagsieve.lake import TABLES, Lake
from tagsieve.ledger import fingerprint
from tagsieve.ontology.config import ClusterConfig, SemanticConfig
from tagsieve.ontology.semantic import encoder_fingerprint, tag_vectors

PAIRS_AT_ONCE = 2**18
"""Pairs of a tag and a cluster that are held at a time."""

PRODUCTS = pa.schema([("tag", pa.string()), ("cluster", pa.int64()), ("product", pa.float64())])


def clustering_name(version: str, config: ClusterConfig, semantic: SemanticConfig) -> str:
    """The clustering's name in the tables: version, number of clusters, and a hash of all that
    decides it but for the rows."""
    decides = fingerprint(version, config.model_dump(), encoder_fingerprint(semantic))
    return f"tags-{version}-k{config.clusters}-{decides[:12]}"


def cluster(
    context: Context, version: str, config: ClusterConfig, semantic: SemanticConfig
) -> None:
    """Put the tags of an ontology version in groups, and each content in the group of its tags.

    k-means over the tags' vectors makes `centroids`, once; each tag goes to the nearest of them
    (`tag_clusters`), each content to the cluster that has most of its tags, of several to the one
    whose centroid is nearest to the mean of its tags' vectors (`clusters`). What is in a cluster
    stays there; what is new joins. `cluster_labels` is made anew. Rejected reason, in the unit
    sample: `untagged`. Raises RunError where there are fewer tags than clusters.

    The driver holds the distinct tags with their vectors (4 bytes x dimensions x tags, twice while
    they are read).
    """
    run, lake, console = context.run, context.lake, context.console
    run.unit = "sample"
    run.reads("samples", "tags")
    name = clustering_name(version, config, semantic)
    if run.done_before(name):
        return
    spark = context.engines.spark
    with console.spark_progress(spark, "cluster: counting tags"):
        run.input = context.pinned("samples").select("sample_id").distinct().count()
        tagged = context.stored("tagged", tagged_contents(context, version))
        found = tagged.count()
        uses = read_all(context, "tag-uses", tag_uses(tagged, config.seed)).sort_by("tag")
    # A version loses no tag: where there are centroids, there are enough.
    if uses.num_rows < config.clusters:
        raise RunError(
            f"cluster.clusters={config.clusters:,}: the conversations of ontology version "
            f"{version} have only {uses.num_rows:,} tags; set it lower"
        )
    tags = uses["tag"].combine_chunks()
    vectors = tag_vectors(lake, tags, semantic, context.engines, console, "cluster")
    draws = uses["draw"].to_numpy()
    centroids = kept_centroids(lake, name, lambda: _trained(context, config, draws, vectors))
    clusters, distances = _assign_tags(context, name, tags, vectors, centroids)
    run.kept, ties = _assign_contents(context, name, tagged, tags, vectors, centroids)
    with console.spark_progress(spark, "cluster: labels"):
        labels = cluster_labels(config.clusters, uses, clusters, distances)
        contents = _of_clustering(context, "clusters", name)
        rows = spark.createDataFrame(labels).join(
            cluster_sizes(contents, context.pinned("samples")), "cluster", "left"
        )
        samples = F.coalesce("samples", F.lit(0))
        rows = rows.withColumns({"clustering": F.lit(name), "samples": samples})
        lake.replace(rows, "cluster_labels", {"clustering": name})
    run.known = found - run.kept
    if run.input > found:
        run.rejected["untagged"] = run.input - found
    run.metrics = {"clusters": config.clusters, "tags": len(tags), "ties": ties}
    run.wrote("centroids", "tag_clusters", "clusters", "cluster_labels")


def tagged_contents(context: Context, version: str) -> DataFrame:
    """`sample_id` and `tags` of each content that has any in an ontology version."""
    tags = context.pinned("tags").where(F.col("ontology_version") == version)
    tags = tags.where(F.size("tags") > 0).select("sample_id", "tags")
    return tags.join(context.pinned("samples").select("sample_id"), "sample_id", "left_semi")


def tag_uses(tagged: DataFrame, seed: int) -> DataFrame:
    """`tag`, the `samples` that have it, and its `draw`, by which tags are chosen for k-means."""
    held = tagged.select(F.explode("tags").alias("tag"))
    uses = held.groupBy("tag").agg(F.count("*").alias("samples"))
    return uses.withColumn("draw", F.xxhash64(F.lit(seed), "tag"))


def leading_clusters(tagged: DataFrame, placed: DataFrame) -> DataFrame:
    """`sample_id`, `tags`, and `leading`, the clusters that most of these are in.

    Reads `sample_id`, `tags` of contents; `tag`, `cluster` of all their tags.
    """
    of_cluster = (
        tagged.select("sample_id", F.explode("tags").alias("tag"))
        .join(placed, "tag")
        .groupBy("sample_id", "cluster")
        .agg(F.count("*").alias("votes"), F.collect_list("tag").alias("tags"))
    )
    of_content = of_cluster.groupBy("sample_id").agg(
        F.flatten(F.collect_list("tags")).alias("tags"),
        F.collect_list(F.struct("cluster", "votes")).alias("clusters"),
        F.max("votes").alias("most"),
    )
    leading = F.filter("clusters", lambda each: each["votes"] == F.col("most"))["cluster"]
    return of_content.select("sample_id", "tags", leading.alias("leading"))


def cluster_sizes(in_clusters: DataFrame, samples: DataFrame) -> DataFrame:
    """`cluster`, the `samples` in it, and its `representative`: the one with the most characters in
    its first human turn, of equals the least `sample_id`.

    Reads `sample_id`, `cluster` of contents; `sample_id`, `turns` of all samples.
    """
    lengths = samples.select("sample_id", F.char_length(first_human_text()).alias("length"))
    # A content may stand in several pools, with spaces of different widths.
    lengths = lengths.groupBy("sample_id").agg(F.max("length").alias("length"))
    longest = F.struct(-F.coalesce("length", F.lit(0)), "sample_id")
    return (
        in_clusters.select("sample_id", "cluster")
        .join(lengths, "sample_id")
        .groupBy("cluster")
        .agg(F.count("*").alias("samples"), F.min_by("sample_id", longest).alias("representative"))
    )


def cluster_labels(count: int, uses: pa.Table, clusters: Array, distances: Array) -> pa.Table:
    """`cluster`, `label`, `tags` of each of `count` clusters: the tag that most samples have, of
    equals the one nearest to the centroid, then the first; and how many tags there are.

    Reads `tag`, `samples` of `uses`, in code-point order, whose clusters and distances are given.
    """
    samples = uses["samples"].to_numpy()
    order = np.lexsort((np.arange(len(samples)), distances, -samples, clusters))
    filled, first, sizes = np.unique(clusters[order], return_index=True, return_counts=True)
    rows = np.full(count, -1)
    rows[filled] = order[first]
    tags = np.zeros(count, dtype=np.int64)
    tags[filled] = sizes
    labels = uses["tag"].combine_chunks().take(pa.array(rows, mask=rows < 0))
    return pa.table({"cluster": np.arange(count), "label": labels, "tags": tags})


def _trained(context: Context, config: ClusterConfig, draws: Array, vectors: Array) -> Array:
    """Centroids of the tags with the least draws; in code-point order, as all tags are."""
    order = np.lexsort((np.arange(len(draws)), draws))
    chosen = np.sort(order[: ROWS_PER_CENTROID * config.clusters])
    context.console.status(f"cluster: k-means, {config.clusters:,} of {len(chosen):,} tags")
    return train(vectors[chosen], config.clusters, config.seed, config.iterations)


def _of_clustering(context: Context, table: str, name: str) -> DataFrame:
    rows = context.lake.read(context.engines.spark, table)
    return rows.where(F.col("clustering") == name)


def _assign_tags(
    context: Context, name: str, tags: pa.Array, vectors: Array, centroids: Array
) -> tuple[Array, Array]:
    """The cluster of each tag (int64 [n]) and the distance to its centroid (float64 [n]): those in
    the table `tag_clusters`, and the nearest of the others, which are added to it."""
    lake, owner = context.lake, f"cluster {name}"
    commits = lake.commits_of("tag_clusters", owner)
    known = _known(lake, name)
    lacking = pc.invert(pc.is_in(tags, known["tag"].combine_chunks()))
    new = tags.filter(lacking)
    if len(new):
        context.console.status(f"cluster: nearest centroids of {len(new):,} tags")
        nearest, apart = Centroids(centroids).assign(vectors[lacking.to_numpy(False)])
        columns = [pa.array([name] * len(new)), new, pa.array(nearest), pa.array(apart)]
        rows = pa.Table.from_arrays(columns, TABLES["tag_clusters"].schema.names)
        lake.append_next("tag_clusters", rows, owner, commits)
        known = _known(lake, name)
    rows = known.take(pc.index_in(tags, known["tag"].combine_chunks()))
    return rows["cluster"].to_numpy(), rows["distance"].to_numpy()


def _known(lake: Lake, name: str) -> pa.Table:
    return lake.arrow("tag_clusters", filters=[("clustering", "=", name)])


def _assign_contents(
    context: Context,
    name: str,
    tagged: DataFrame,
    tags: pa.Array,
    vectors: Array,
    centroids: Array,
) -> tuple[int, int]:
    """Add the contents that are not in `clusters` yet to it; gives how many these are, and for how
    many of them the nearest centroid decided."""
    spark, progress = context.engines.spark, context.console.spark_progress
    with progress(spark, "cluster: conversations"):
        known = _of_clustering(context, "clusters", name).select("sample_id")
        of_tags = _of_clustering(context, "tag_clusters", name).select("tag", "cluster")
        new = tagged.join(known, "sample_id", "left_anti")
        voted = context.stored("voted", leading_clusters(new, of_tags))
        tied = voted.where(F.size("leading") > 1)
        count, ties = voted.count(), tied.count()
    if not count:
        return 0, 0
    nearest = _nearest_of_tied(context, tied, tags, vectors, centroids)
    most = voted.where(F.size("leading") == 1)
    most = most.select("sample_id", F.get("leading", F.lit(0)).alias("cluster"))
    nowhere = F.lit(None).cast("double")  # a conversation has no vector of its own
    with progress(spark, "cluster: conversations"):
        rows = context.stored("assigned", most.unionByName(nearest))
        rows = rows.withColumns({"clustering": F.lit(name), "distance": nowhere})
        added = context.lake.insert_new(rows, "clusters", {"clustering": name})
    return added, ties


def _nearest_of_tied(
    context: Context, tied: DataFrame, tags: pa.Array, vectors: Array, centroids: Array
) -> DataFrame:
    """`sample_id` and `cluster`: of the `leading` clusters the one whose centroid c is nearest to
    the mean m of the vectors of a row's `tags`, of equals the least.

    |m - c|^2 is |c|^2 - 2 m.c and a number of the row, and m.c the mean of its tags' products with
    c, which are made once for each pair of a tag and a cluster.
    """
    spark = context.engines.spark
    each = tied.select("sample_id", F.explode("tags").alias("tag"), "leading")
    each = each.select("sample_id", "tag", F.explode("leading").alias("cluster"))
    folder = context.lake.work_uri(context.run.run_id, "tied-pairs")
    with context.console.spark_progress(spark, "cluster: ties"):
        count = write_rows(context.lake, each.select("tag", "cluster").distinct(), folder)
    products = Parts(context, "products", PRODUCTS)
    progress = context.console.progress("cluster: ties", count, "pairs of a tag and a cluster")
    for pairs in read_chunks(folder, PAIRS_AT_ONCE) if count else ():
        i, j = pc.index_in(pairs["tag"], tags).to_numpy(), pairs["cluster"].to_numpy()
        product = pa.array(exact_products(vectors, centroids, i, j))
        products.add(pairs.append_column("product", product))
        progress.advance(pairs.num_rows)
    norms = np.square(centroids.astype(np.float64)).sum(axis=1)
    squares = spark.createDataFrame(pa.table({"cluster": np.arange(len(norms)), "square": norms}))
    total = F.aggregate("products", F.lit(0.0), lambda total, product: total + product)
    apart = F.col("square") - 2 * total / F.size("products")
    # Of two centroids that are equally far, float64 may find either one nearer by a hair.
    nearest = F.filter("clusters", lambda each: each["apart"] <= F.col("least") + ROUNDING)
    return (
        each.join(products.frame(), ["tag", "cluster"])
        .groupBy("sample_id", "cluster")
        # Sorted: floats have another sum in another order.
        .agg(F.array_sort(F.collect_list("product")).alias("products"))
        .join(F.broadcast(squares), "cluster")
        .select("sample_id", "cluster", apart.alias("apart"))
        .groupBy("sample_id")
        .agg(
            F.collect_list(F.struct("cluster", "apart")).alias("clusters"),
            F.min("apart").alias("least"),
        )
        .select("sample_id", F.array_min(nearest["cluster"]).alias("cluster"))
    )
