"""The sentence encoder: unit vectors that do not depend on the texts beside them."""

import numpy as np
import pytest

from tagsieve.engines.encoders import BUCKETS, SentenceEncoder, packaged_minilm

TEXTS = [
    "Write a poem about the sea.",
    "",
    "短い質問",
    "word " * 400,
    "Sort a list of numbers in Python and explain the complexity.",
    *(f"What is {n} times {n + 1}?" for n in range(40)),
]


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(packaged_minilm(), "float32")


def test_encode_any_company_gives_the_same_bits(encoder):
    together = encoder.encode(TEXTS)
    backwards = encoder.encode(TEXTS[::-1])[::-1]
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS[:5]])
    assert np.array_equal(together, backwards)
    assert np.array_equal(together[:5], alone)


def test_encode_gives_unit_vectors_near_the_reference(encoder):
    from sentence_transformers import SentenceTransformer

    vectors = encoder.encode(TEXTS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    short = [TEXTS[0], TEXTS[4]]
    reference = SentenceTransformer(packaged_minilm(), device="cpu").encode(
        short, normalize_embeddings=True
    )
    assert np.allclose(encoder.encode(short), reference, atol=1e-4)


def test_encode_whole_has_the_vectors_of_encode(encoder):
    whole = encoder.encode_whole(TEXTS)
    assert np.array_equal(whole.vectors, encoder.encode(TEXTS))
    assert np.isfinite(whole.poolings).all()
    assert whole.poolings.shape[0] == len(whole.tokens) == len(TEXTS)


def test_tokens_of_a_long_text_keep_both_ends(encoder):
    long = encoder.tokens(["start " + "word " * 5000 + "finish"])[0]
    head, tail = encoder.tokens(["start"])[0], encoder.tokens(["finish"])[0]
    assert len(long) == BUCKETS[-1]
    assert long[:2] == head[:2]
    assert long[-2:] == tail[-2:]
