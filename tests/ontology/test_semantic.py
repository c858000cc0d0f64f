"""The semantic step: vectors by actors and kept in a table, groups and their names."""

import numpy as np
import pyarrow as pa
import pytest

from handmade import rows_of
from tagsieve.console import Console
from tagsieve.errors import UsageError
from tagsieve.ontology.config import SemanticConfig
from tagsieve.ontology.dbscan import NOISE, dbscan, distances
from tagsieve.ontology.semantic import (
    encoder_fingerprint,
    group_labels,
    semantic_names,
    tag_vectors,
)

QUIET = Console(quiet=True)
TAGS = pa.array(
    ["data visualisation", "data visualization", "machine translation", "sql", "sql queries",
     "sql query", "信息检索"]
)  # fmt: skip


@pytest.fixture
def vectors_of(lake, engines):
    def make(tags, **config):
        return tag_vectors(lake, tags, SemanticConfig(**config), engines, QUIET)

    return make


def test_tag_vectors_are_kept_and_only_new_tags_are_encoded(lake, vectors_of):
    first = vectors_of(TAGS.slice(0, 4))
    assert len(rows_of(lake, "tag_vectors")) == 4
    whole = vectors_of(TAGS)
    assert np.array_equal(whole[:4], first)
    rows = rows_of(lake, "tag_vectors", encoder=encoder_fingerprint(SemanticConfig()))
    assert sorted(row["tag"] for row in rows) == TAGS.to_pylist()
    assert lake.version("tag_vectors") == 2
    assert np.array_equal(vectors_of(TAGS), whole)
    assert lake.version("tag_vectors") == 2
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-3)


def test_another_precision_is_another_encoder(lake, vectors_of):
    vectors_of(TAGS, dtype="float32")
    vectors_of(TAGS, dtype="bfloat16")
    assert len({row["encoder"] for row in rows_of(lake, "tag_vectors")}) == 2


def test_encoder_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="no/such/encoder"):
        encoder_fingerprint(SemanticConfig(encoder="no/such/encoder"))


def test_group_labels_by_actors_are_those_of_dbscan_on_all_pairs(engines):
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(900, 24)), 6, axis=0) + 0.15 * rng.normal(size=(5400, 24))
    vectors = vectors.astype(np.float32)  # more than one block
    engines.ray()
    config = SemanticConfig(eps=0.02, min_samples=3)
    labels = group_labels(vectors, config, engines.ray_config, QUIET)
    i, j = np.triu_indices(len(vectors), 1)
    near = np.concatenate(
        [
            distances(vectors, i[part], j[part]) <= config.eps
            for part in np.array_split(np.arange(len(i)), 60)
        ]
    )
    pairs = (i[near].astype(np.int32), j[near].astype(np.int32))
    assert np.array_equal(labels, dbscan(len(vectors), lambda: [pairs], 3))
    assert NOISE in labels
    assert labels.max() > 100


def named(uses, labels, *args, tags="abcdef"):
    listed = pa.array(list(tags[: len(uses)]))
    vectors = np.array(
        [[np.cos(x), np.sin(x)] for x in np.radians([0, 10, 20, 30, 40, 50])], dtype=np.float32
    )[: len(uses)]
    return "".join(
        semantic_names(listed, np.array(uses), vectors, np.array(labels), *args).to_pylist()
    )


def test_name_of_a_group_is_its_most_used_then_shortest_then_first_member():
    assert named([1, 5, 2, 9], [0, 0, 0, NOISE]) == "bbbd"
    assert named([3, 3, 1, 4], [1, 0, 0, 1]) == "dbbd"
    tags = pa.array(["aaa", "bb", "cc"])
    one = np.zeros((3, 2), dtype=np.float32)
    names = semantic_names(tags, np.array([7, 7, 7]), one, np.zeros(3, dtype=int))
    assert names.to_pylist() == ["bb"] * 3


def test_diameter_splits_a_chain_in_the_order_of_names():
    chain = [0] * 5
    assert named([1, 2, 9, 2, 1], chain) == "ccccc"
    within = 1 - np.cos(np.radians(10.5))
    # c opens a group, and b joins it; d is 20 degrees from b, so it opens one, which e joins.
    assert named([1, 2, 9, 2, 1], chain, within) == "accdd"


def test_tags_apart_are_in_groups_of_their_own():
    assert named([3, 2, 1], [0, 0, 0], None, [frozenset("ab")]) == "aba"
    assert named([3, 2, 1], [0, 0, 0], None, [frozenset("abc")]) == "abc"
    assert named([3, 2, 1], [0, 0, 0], None, [frozenset("xb")]) == "aaa"
