"""DBSCAN by range search against scikit-learn's on the same distances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from tagsieve.engines import vectors as module
from tagsieve.ontology.dbscan import NOISE, RangeSearch, dbscan, distances


def clustered(vectors, eps, min_samples, block):
    search = RangeSearch(vectors, eps, block)

    def pairs():
        return map(search.pairs_of, range(search.blocks))

    return dbscan(len(vectors), pairs, min_samples)


def reference(vectors, eps, min_samples):
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    places = np.indices((len(vectors), len(vectors))).reshape(2, -1)
    exact = distances(vectors, *places).reshape(len(vectors), -1)
    assert np.allclose(exact, 1 - wide @ wide.T, atol=1e-12)
    np.fill_diagonal(exact, 0)
    found = DBSCAN(eps=max(eps, 1e-300), min_samples=min_samples, metric="precomputed")
    return found.fit_predict(np.maximum(exact, 0))


def random_vectors(seed, count, dimension, groups):
    """Vectors in `groups` loose bunches, so that there are core, border and noise points."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, dimension))
    spread = rng.uniform(0.02, 0.6, size=(count, 1))
    vectors = centres[rng.integers(groups, size=count)] + spread * rng.normal(
        size=(count, dimension)
    )
    return vectors.astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(2, 8),
    st.integers(1, 6),
    st.floats(0.001, 0.5),
    st.integers(1, 6),
    st.sampled_from([1, 7, 64]),
)
def test_labels_are_those_of_scikit_learn(seed, count, dimension, groups, eps, min_samples, block):
    vectors = random_vectors(seed, count, dimension, groups)
    ours = clustered(vectors, eps, min_samples, block)
    # Not only up to renaming: clusters are numbered by their first core point in both.
    assert ours.tolist() == reference(vectors, eps, min_samples).tolist()


def test_border_point_joins_the_cluster_whose_core_comes_first():
    angles = np.radians([0, 1, 2, 10, 18, 19, 20])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    eps = 1 - np.cos(np.radians(8.5))
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 4, 5, 6, 0, 1, 2]):
        labels = clustered(vectors[order], eps, 4, 2)
        assert labels.tolist() == reference(vectors[order], eps, 4).tolist()
        border, first = order.index(3), next(n for n, row in enumerate(order) if row != 3)
        assert labels[border] == labels[first]


def test_distance_of_exactly_eps_is_near():
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    eps = float(distances(vectors, np.array([0]), np.array([1]))[0])
    assert clustered(vectors, eps, 2, 4).tolist() == [0, 0, NOISE]
    assert clustered(vectors, np.nextafter(eps, 0), 2, 4).tolist() == [NOISE] * 3


def test_pairs_depend_on_no_block_size(monkeypatch):
    vectors = random_vectors(3, 500, 16, 40)
    whole = {}
    for block in (1, 13, 128, 500, 4096):
        search = RangeSearch(vectors, 0.05, block)
        parts = [search.pairs_of(n) for n in range(search.blocks)]
        found = sorted(
            zip(*(np.concatenate(p).tolist() for p in zip(*parts, strict=True)), strict=True)
        )
        whole[block] = found
        monkeypatch.setattr(module, "_DECIDED_AT_ONCE", 1 + block)
    assert len(whole[13]) > 100
    assert all(found == whole[13] for found in whole.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_candidates_of_a_low_precision_miss_no_pair(monkeypatch, dtype):
    monkeypatch.setattr(module, "cpu_dtype", lambda: dtype)
    vectors = random_vectors(5, 400, 384, 20)
    search = RangeSearch(vectors, 0.2, 128)
    found = {
        pair
        for n in range(search.blocks)
        for pair in zip(*map(np.ndarray.tolist, search.pairs_of(n)), strict=True)
    }
    i, j = np.triu_indices(len(vectors), 1)
    near = distances(vectors, i, j) <= 0.2
    assert found == set(zip(i[near].tolist(), j[near].tolist(), strict=True))
