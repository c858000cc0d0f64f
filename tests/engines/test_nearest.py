"""Distances to the k-th nearest vector against a plain loop in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.neighbours import kth_distances
from tagsieve.engines.nearest import Nearest


def made(random, count, width=24):
    """Vectors with equal ones, near ones and scaled ones among them."""
    vectors = random.normal(size=(count, width)).astype(np.float32)
    if count > 4:
        twins = random.integers(0, count, size=(2, count // 3))
        vectors[twins[0]] = vectors[twins[1]]
        near = random.integers(0, count, size=(2, count // 4))
        noise = random.normal(size=(count // 4, width)) * 10.0 ** -random.uniform(
            2, 7, (count // 4, 1)
        )
        vectors[near[0]] = vectors[near[1]] + noise
        vectors[random.integers(0, count, 2)] *= 1000
    return vectors


def distances(vectors, k, block, dtype=None, order=None):
    """In blocks of queries and of others, which come in any order."""
    count = len(vectors)
    starts = range(0, count, block)
    found = np.empty(count)
    for start in starts:
        rows = np.arange(start, min(start + block, count))
        nearest = Nearest(rows, vectors[rows], k, dtype)
        for other in order.permutation(starts) if order is not None else starts:
            seen = np.arange(other, min(other + block, count))
            nearest.see(seen, vectors[seen])
        found[rows] = nearest.distances
    return found


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 90),
    block=st.integers(1, 100),
    k=st.sampled_from([1, 2, 5, 30]),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_nearest_in_any_blocks_and_precision_equals_the_plain_loop(seed, count, block, k, dtype):
    random = np.random.default_rng(seed)
    vectors = made(random, count)
    found = distances(vectors, k, block, dtype, random)
    assert np.allclose(found, kth_distances(vectors, k), rtol=0, atol=1e-14)
    # The same bits, whatever the blocks.
    assert np.array_equal(found, distances(vectors, k, count))


def test_nearest_of_duplicates_is_zero_and_of_opposites_two():
    row = np.array([[0.3, -0.1, 0.7]], dtype=np.float32)
    vectors = np.concatenate([row, row, row, -row])
    assert distances(vectors, 1, 2).tolist() == [0.0, 0.0, 0.0, 2.0]
    assert distances(vectors, 2, 4).tolist() == [0.0, 0.0, 0.0, 2.0]
    assert distances(vectors, 3, 1).tolist() == [2.0, 2.0, 2.0, 2.0]
    assert np.isinf(distances(vectors, 4, 3)).all()


def test_nearest_among_many_that_products_do_not_tell_apart_is_exact():
    random = np.random.default_rng(1)
    centre = random.normal(size=64)
    vectors = (centre + random.normal(size=(400, 64)) * 1e-4).astype(np.float32)
    found = distances(vectors, 3, 150, "bfloat16")
    assert np.allclose(found, kth_distances(vectors, 3), rtol=0, atol=1e-14)
    assert 0 < found.min() < found.max() < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("k", [1, 4])
def test_nearest_on_a_gpu_equals_the_plain_loop(k):
    vectors = made(np.random.default_rng(2), 700)
    found = distances(vectors, k, 256)
    assert np.allclose(found, kth_distances(vectors, k), rtol=0, atol=1e-14)
