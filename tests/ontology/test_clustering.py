"""The cluster step against plain loops: ties, labels, partitions, new rows, what was cut off."""

from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from handmade import put, recorded, rows_of, sample, tagged
from parity import clustering as plain
from tagsieve.console import Console
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.ontology import ClusterConfig, cluster, clustering, clustering_name
from tagsieve.ontology.clustering import cluster_labels
from tagsieve.ontology.config import SemanticConfig
from tagsieve.ontology.semantic import encoder_fingerprint
from tagsieve.ontology.step import identity
from tagsieve.recipe import Recipe
from tagsieve.runner import run_steps
from tagsieve.tagging import tagger_fingerprint

SEMANTIC = SemanticConfig()
CONFIG = ClusterConfig(clusters=6)
NAME = clustering_name("v1", CONFIG, SEMANTIC)
WIDTH = 8


class Case:
    """Random tags with vectors, and contents with some of them, as rows of tables and as plain
    values.

    `whole`: vectors and centroids of small whole numbers, some the same, so that many conversations
    are as far from one centroid as from another.
    """

    def __init__(self, seed, whole=False, tags=30, contents=120):
        self.rng, self.whole = np.random.default_rng(seed), whole
        self.vectors, self.rows, self.queries, self.samples = {}, {}, {}, []
        self.grow(tags, contents)
        self.centroids = [self.vector() for _ in range(CONFIG.clusters)]

    def vector(self):
        if self.whole:
            return [1.0, *map(float, self.rng.integers(-1, 2, 2)), *[0.0] * (WIDTH - 3)]
        drawn = self.rng.normal(size=WIDTH)
        return (drawn / np.linalg.norm(drawn)).astype(np.float32).tolist()

    def grow(self, tags, contents):
        """More tags and contents; some of these have no tags, some are in two pools."""
        for number in range(len(self.vectors), len(self.vectors) + tags):
            self.vectors[f"tag {number * 7919 % 1000:03}"] = self.vector()
        names = list(self.vectors)
        for number in range(len(self.rows), len(self.rows) + contents):
            key = f"s{number * 7919 % 1000:03}"
            few = self.rng.choice(len(names), self.rng.integers(0, 7), replace=False)
            self.rows[key] = sorted(names[n] for n in few)
            self.queries[key] = []
            for pool in "ab"[: 1 + (number % 5 == 0)]:
                query = "?" * int(self.rng.integers(1, 9))
                turns = [("system", "be brief " * 9), ("user", query), ("assistant", "yes")]
                self.queries[key].append(query)
                self.samples.append(sample(pool, key, turns=turns, row=number))

    def put(self, lake):
        """Write what the lake does not have yet."""
        encoder = encoder_fingerprint(SEMANTIC)
        there = {row["tag"] for row in rows_of(lake, "tag_vectors")}
        put(lake, "tag_vectors", [
            {"encoder": encoder, "tag": tag, "vector": vector}
            for tag, vector in self.vectors.items() if tag not in there
        ])  # fmt: skip
        there = {row["sample_id"] for row in rows_of(lake, "samples")}
        put(lake, "samples", [row for row in self.samples if row["sample_id"] not in there])
        put(lake, "tags", [tagged(k, *t) for k, t in self.rows.items() if k not in there])

    def put_centroids(self, lake):
        rows = [{"clustering": NAME, "cluster": n, "vector": v}
                for n, v in enumerate(self.centroids)]  # fmt: skip
        put(lake, "centroids", rows)

    def check(self, lake, name=NAME):
        """The tables have what the loops find; gives the number of ties."""

        def by(table, column):
            return sorted(rows_of(lake, table, clustering=name), key=lambda row: row[column])

        self.centroids = [row["vector"] for row in by("centroids", "cluster")]
        used = {tag for tags in self.rows.values() for tag in tags}
        vectors = {tag: self.vectors[tag] for tag in used}
        of_tag = plain.tags_assigned(vectors, self.centroids)
        rows = by("tag_clusters", "tag")
        assert {row["tag"]: row["cluster"] for row in rows} == of_tag
        for row in rows:
            exact = float(plain.apart(vectors[row["tag"]], self.centroids[row["cluster"]])) ** 0.5
            assert row["distance"] == pytest.approx(exact, rel=1e-12, abs=1e-12)
        clusters, tied = plain.assigned(self.rows, of_tag, vectors, self.centroids)
        found = by("clusters", "sample_id")
        assert {row["sample_id"]: row["cluster"] for row in found} == clusters
        assert len(found) == len(clusters)
        assert {row["distance"] for row in found} == {None}
        told = by("cluster_labels", "cluster")
        assert [row["cluster"] for row in told] == list(range(len(self.centroids)))
        columns = ("label", "tags", "samples", "representative")
        assert [tuple(row[name] for name in columns) for row in told] == plain.labels(
            self.rows, clusters, of_tag, vectors, self.centroids, self.queries
        )
        return len(tied)


@pytest.fixture
def run(lake, engines):
    numbers = iter(range(100))

    def made(config=CONFIG):
        step = (cluster, "v1", config, SEMANTIC)
        return recorded(lake, engines, "cluster", f"r{next(numbers)}", *step)

    return made


@contextmanager
def shuffled(spark, partitions):
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", partitions)
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", False)
    try:
        yield
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
        spark.conf.unset("spark.sql.adaptive.coalescePartitions.enabled")


@pytest.mark.parametrize(("partitions", "whole"), [(1, False), (2, True), (7, False)])
def test_contents_go_where_the_loops_put_them_for_any_partitions(
    run, lake, spark, partitions, whole
):
    case = Case(partitions, whole)
    case.put(lake)
    case.put_centroids(lake)
    with shuffled(spark, partitions):
        done = run()
    ties = case.check(lake)
    assert ties > 20
    empty = sum(not tags for tags in case.rows.values())
    assert (done.unit, done.input, done.kept) == ("sample", len(case.rows), len(case.rows) - empty)
    assert done.rejected == {"untagged": empty}
    figures = {name: done.metrics[name] for name in ("clusters", "tags", "ties")}
    assert figures == {"clusters": 6, "tags": 30, "ties": ties}


def test_new_rows_and_tags_join_and_what_is_known_stays(run, lake):
    case = Case(3)
    case.put(lake)
    first = run()
    case.check(lake)
    tables = ("centroids", "tag_clusters", "clusters", "cluster_labels")
    assert first.written == {table: lake.version(table) for table in tables}
    before = {table: rows_of(lake, table) for table in tables}

    again = run()
    assert (again.input, again.known, again.kept, again.written) == (120, 120, 0, {})
    assert {table: lake.version(table) for table in tables} == first.written

    case.grow(8, 40)
    case.put(lake)
    put(lake, "samples", [sample("c", "unanswered")])
    put(lake, "tags", [tagged("s000", "of another version", version="v2")])
    grown = run()
    case.check(lake)
    assert (grown.input, grown.known) == (161, first.kept)
    assert grown.rejected["untagged"] == 161 - first.kept - grown.kept > first.rejected["untagged"]
    assert rows_of(lake, "centroids") == before["centroids"]
    assert lake.version("centroids") == first.written["centroids"]
    for table, key, added in (("clusters", "sample_id", grown.kept), ("tag_clusters", "tag", 8)):
        rows = {row[key]: row for row in rows_of(lake, table)}
        assert all(rows[row[key]] == row for row in before[table])
        assert len(rows) == len(before[table]) + added
        assert lake.version(table) == first.written[table] + 1


@pytest.mark.parametrize(
    "where",
    [
        "clusters",
        pytest.param("tag_clusters", marks=pytest.mark.soak),
        pytest.param("cluster_labels", marks=pytest.mark.soak),
    ],
)
def test_a_run_that_was_cut_off_is_ended_by_the_next(run, lake, monkeypatch, where):
    """Killed before the write to each table but the first."""
    case = Case(5, contents=60)
    case.put(lake)
    with monkeypatch.context() as patched:
        for name in ("append_next", "insert_new", "replace"):
            whole = getattr(Lake, name)

            def cut(self, *args, whole=whole):
                if where in [arg for arg in args if isinstance(arg, str)]:
                    raise KeyboardInterrupt
                return whole(self, *args)

            patched.setattr(Lake, name, cut)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert rows_of(lake, where) == []
    put(lake, "cluster_labels", [{"clustering": NAME, "cluster": 99, "label": "left over"}])
    done = run()
    case.check(lake)
    assert lake.version("centroids") == 1
    assert (done.known > 0) == (where == "cluster_labels")


def test_fewer_tags_than_clusters_are_refused_and_as_many_are_clusters_of_their_own(run, lake):
    """The middle of two tags is then equally far from both."""
    case = Case(6, tags=12)
    case.put(lake)
    with pytest.raises(
        RunError, match=r"cluster\.clusters=13: .* v1 have only 12 tags; set it lower"
    ):
        run(ClusterConfig(clusters=13))
    assert rows_of(lake, "centroids") == []
    config = ClusterConfig(clusters=12)
    run(config)
    name = clustering_name("v1", config, SEMANTIC)
    case.check(lake, name)
    assert {row["distance"] for row in rows_of(lake, "tag_clusters")} == {0.0}
    clusters = {row["tag"]: row["cluster"] for row in rows_of(lake, "tag_clusters")}
    pairs = {key: tags for key, tags in case.rows.items() if len(tags) == 2}
    first = {key: min(clusters[tag] for tag in tags) for key, tags in pairs.items()}
    found = {row["sample_id"]: row["cluster"] for row in rows_of(lake, "clusters")}
    assert len(first) > 9
    assert {key: found[key] for key in first} == first


def test_clusterings_of_two_seeds_lie_beside_each_other_and_learn_from_other_tags(
    run, lake, monkeypatch
):
    monkeypatch.setattr(clustering, "ROWS_PER_CENTROID", 8)
    case = Case(7)
    case.put(lake)
    used = sorted({tag for tags in case.rows.values() for tag in tags})
    made = []
    for seed in (0, 1):
        config = ClusterConfig(clusters=1, seed=seed)
        run(config)
        name = clustering_name("v1", config, SEMANTIC)
        (row,) = rows_of(lake, "centroids", clustering=name)
        chosen = sorted(used, key=lambda tag, seed=seed: draw(tag, seed))[:8]
        mean = np.mean([case.vectors[tag] for tag in chosen], axis=0)
        np.testing.assert_allclose(row["vector"], mean, atol=1e-6)
        made.append(name)
    assert {row["clustering"] for row in rows_of(lake, "cluster_labels")} == set(made)
    assert made[0] != made[1] != clustering_name("v2", config, SEMANTIC)
    assert made[0].startswith("tags-v1-k1-")


def draw(tag, seed):
    """Spark's xxhash64 of the seed (an int) and a tag."""
    value = xxhash.xxh64_intdigest(seed.to_bytes(4, "little"), seed=42)
    value = xxhash.xxh64_intdigest(tag.encode(), seed=value)
    return value - 2**64 if value >= 2**63 else value


TAGS = st.dictionaries(
    st.text(min_size=1, max_size=3),
    st.tuples(st.integers(1, 3), st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0])),
)


@given(TAGS, st.integers(5, 7))
def test_label_is_the_most_used_then_nearest_then_first_tag(tags, count):
    listed = pa.table(
        {"tag": pa.array(sorted(tags), pa.string()),
         "samples": pa.array([tags[tag][0] for tag in sorted(tags)], pa.int64())}
    )  # fmt: skip
    places = [tags[tag][1:] for tag in sorted(tags)]
    clusters, distances = (np.array([place[n] for place in places]) for n in (0, 1))
    found = cluster_labels(count, listed, clusters.astype(int), distances)
    for row in found.to_pylist():
        own = {tag: of for tag, of in tags.items() if of[1] == row["cluster"]}
        first = min(own, key=lambda tag: (-own[tag][0], own[tag][2], tag), default=None)
        assert (row["label"], row["tags"]) == (first, len(own))
    assert found["cluster"].to_pylist() == list(range(count))


def test_step_of_a_recipe_groups_the_tags_of_its_version(lake, engines):
    recipe = Recipe(lake=lake.root, steps=["cluster"], cluster={"clusters": 6})
    tagger = tagger_fingerprint(recipe.tag)
    put(lake, "ontology_versions", [
        {"version": "v1", "tagger": tagger, **identity(recipe.normalize)}
    ])  # fmt: skip
    case = Case(8)
    case.put(lake)
    run_steps(recipe, recipe.steps, Console(quiet=True), engines)
    case.check(lake)
