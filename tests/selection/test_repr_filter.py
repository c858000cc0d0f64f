"""The repr filter in blocks against the loop that takes row after row."""

from contextlib import ExitStack
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.repr_filter import repr_filter
from tagsieve.engines.vectors import AT_ONCE
from tagsieve.selection import repr_filter as module
from tagsieve.selection.repr_filter import CHUNK, ReprFilter


def filtered(vectors, tau, size, block, dtype=None):
    """(taken rows, the most alike taken row and its similarity of each row before the last taken),
    block by block."""
    made = ReprFilter(tau, size, dtype)
    taken = []
    for start in range(0, len(vectors), block):
        if made.full:
            break
        taken += (start + made.decide(vectors[start : start + block])).tolist()
    decided = taken[-1] + 1 if made.full else len(vectors)
    before = np.searchsorted(taken, np.arange(decided))
    nearest, similarity = made.taken.nearest(vectors[:decided], before)
    return taken, nearest.tolist(), similarity.tolist()


def settled(chunk, at_once):
    """So many rows compared with each other, and so many products made at a time."""
    both = ExitStack()
    both.enter_context(mock.patch.dict(CHUNK, dict.fromkeys(CHUNK, chunk)))
    both.enter_context(mock.patch.dict(AT_ONCE, dict.fromkeys(AT_ONCE, at_once)))
    return both


def bunched(seed, count, dimension):
    """Vectors in loose bunches, with exact duplicates among them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(count // 6, 1), dimension))
    vectors = centres[rng.integers(len(centres), size=count)]
    vectors += rng.uniform(0, 0.6, size=(count, 1)) * rng.normal(size=(count, dimension))
    copies = rng.integers(count, size=count // 5)
    vectors[copies] = vectors[rng.integers(count, size=len(copies))]
    return vectors.astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 80),
    st.integers(2, 24),
    st.floats(0.3, 0.99),
    st.integers(1, 90),
    st.sampled_from([1, 3, 17, 100]),
    st.sampled_from([1, 5, 1000]),
    st.sampled_from([1, 40, 400, 4_000_000]),
    st.sampled_from(["float32", "bfloat16"]),
)
def test_rows_are_those_of_the_loop(
    seed, count, dimension, tau, size, block, chunk, at_once, dtype
):
    vectors = bunched(seed, count, dimension)
    expected, expected_nearest = repr_filter(vectors, tau, size)
    with settled(chunk, at_once):
        taken, nearest, _ = filtered(vectors, tau, size, block, dtype)
    assert taken == expected
    assert nearest == expected_nearest


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.9, 0.95])
def test_blocks_of_any_size_decide_alike(tau):
    vectors = bunched(11, 1500, 64)
    expected, expected_nearest = repr_filter(vectors, tau, 1000)
    for block in (1, 7, 256, 5000):
        assert filtered(vectors, tau, 1000, block)[:2] == (expected, expected_nearest)
    assert 10 < len(expected) < 1500


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pieces_of_any_size_give_the_same_bits(dtype):
    vectors = bunched(7, 900, 32)
    whole = filtered(vectors, 0.95, 900, 300, dtype)
    assert len(whole[0]) > 300
    for at_once in (1, 3_000, 30_000):
        with settled(300, at_once):
            np.testing.assert_equal(filtered(vectors, 0.95, 900, 300, dtype), whole)


def test_products_made_at_a_time_do_not_grow_with_the_rows_taken(monkeypatch):
    made = []

    def counted(left, right):
        made.append(len(left) * len(right))
        return products(left, right)

    products = module.products
    monkeypatch.setattr(module, "products", counted)
    with settled(50, 5_000):
        taken, _, _ = filtered(bunched(5, 800, 32), 0.95, 800, 50)
    assert len(taken) > 300
    assert max(made) <= 5_000


def test_a_similarity_of_exactly_tau_is_no_reason_to_refuse():
    vectors = np.array([[1, 0], [0.8, 0.6], [0.8, 0.6]], dtype=np.float32)
    _, _, (_, tau, _) = filtered(vectors, 0.9, 3, 3)
    assert filtered(vectors, tau, 3, 3)[0] == [0, 1]
    assert filtered(vectors, np.nextafter(tau, 0), 3, 3)[0] == [0]
