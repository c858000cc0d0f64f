"""Greedy k-center in passes against the loop that takes centre after centre."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.kcenter import kcenter
from selection.test_repr_filter import bunched
from tagsieve.selection import kcenter as module
from tagsieve.selection.kcenter import Shard, k_center


def centred(vectors, first, size, shards=1, dtype=None):
    """(rows in the order of taking, their squared distances, passes)."""
    bounds = np.linspace(0, len(vectors), shards + 1).astype(int)
    parts = [
        Shard(vectors[start:stop], np.arange(start, stop), dtype)
        for start, stop in itertools.pairwise(bounds)
        if stop > start
    ]

    def advance(centres, taken, count):
        return [part.advance(centres, taken, count) for part in parts]

    found = list(k_center(advance, first, vectors[first], size))
    rows = [row for part in found for row in part]
    return [row for row, _ in rows], [distance**2 for _, distance in rows], len(found)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 90),
    st.integers(1, 24),
    st.integers(1, 100),
    st.integers(1, 8),
    st.sampled_from(["float32", "bfloat16", "float16"]),
    st.floats(1e-3, 1e3),
)
def test_centres_are_those_of_the_loop(seed, count, dimension, size, shards, dtype, scale):
    vectors = bunched(seed, count, dimension) * np.float32(scale)
    first = seed % count
    expected, squares = kcenter(vectors, first, size)
    found, measured, _ = centred(vectors, first, size, shards, dtype)
    assert found == expected
    np.testing.assert_allclose(measured, squares, rtol=1e-9, atol=1e-9 * scale**2)


@pytest.mark.parametrize("candidates", [1, 40, 5000])
def test_any_number_of_candidates_gives_the_same_centres(candidates, monkeypatch):
    monkeypatch.setattr(module, "CANDIDATES", candidates)
    vectors = bunched(5, 3000, 64)
    expected, _ = kcenter(vectors, 17, 200)
    found, _, passes = centred(vectors, 17, 200, shards=3)
    assert found == expected
    assert passes < 200


def test_equal_rows_are_taken_last_and_in_their_order():
    vectors = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1]], dtype=np.float32)
    assert centred(vectors, 0, 5)[0] == [0, 1, 4, 2, 3]


def test_rows_of_equal_distance_go_by_their_number():
    # The distance of each to the origin is 1, however it is summed up.
    vectors = np.concatenate([np.full((1, 6), 1e-3), -np.eye(6), np.eye(6)]).astype(np.float32)
    for dtype in ("float32", "bfloat16"):
        assert centred(vectors, 0, 13, 4, dtype)[0] == kcenter(vectors, 0, 13)[0]
