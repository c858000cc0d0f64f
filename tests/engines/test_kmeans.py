"""k-means: nearest centroids to the last digit, and equal shares."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.test_repr_filter import bunched
from tagsieve.engines.kmeans import Centroids, train


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 90),
    st.integers(1, 12),
    st.integers(1, 24),
    st.sampled_from(["float32", "bfloat16"]),
    st.floats(1e-2, 1e2),
)
def test_rows_go_to_the_nearest_centroid(seed, count, clusters, dimension, dtype, scale):
    vectors = bunched(seed, count, dimension) * np.float32(scale)
    centroids = bunched(seed + 1, clusters, dimension)
    apart = vectors.astype(float)[:, None] - centroids.astype(float)
    squares = (apart * apart).sum(axis=2)
    found, distances = Centroids(centroids, dtype).assign(vectors)
    assert found.tolist() == squares.argmin(axis=1).tolist()
    np.testing.assert_allclose(distances, np.sqrt(squares.min(axis=1)), rtol=1e-12)


def test_a_row_between_two_centroids_goes_to_the_first():
    centroids = np.array([[3, 0], [0, 2], [0, -2], [0, 0]], dtype=np.float32)
    rows = np.array([[0, 1], [-1, 0], [5, 0]], dtype=np.float32)
    assert Centroids(centroids).assign(rows)[0].tolist() == [1, 3, 0]


def test_training_finds_bunches_and_repeats_itself():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 16)) * 10
    vectors = (centres[rng.integers(8, size=4000)] + rng.normal(size=(4000, 16))).astype("f4")
    first, again = (train(vectors, 8, 5, 20) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    near = np.linalg.norm(first[:, None] - centres, axis=2).min(axis=1)
    assert np.median(near) < 1  # two may share a bunch
    assert train(vectors, 8, 6, 20).tobytes() != first.tobytes()
