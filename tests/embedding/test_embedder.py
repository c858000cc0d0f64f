"""Vectors: those of a plain pass, the same bits in any company; texts that have none, by name."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity.embedding import causal_vector, sentence_vector
from tagsieve.embedding import CausalEmbedConfig, SentenceEmbedConfig
from tagsieve.embedding.embedder import Embedder
from tagsieve.embedding.texts import as_text
from tagsieve.engines.conversations import VICUNA_SYSTEM
from tagsieve.engines.encoders import packaged_minilm
from tagsieve.lake import TURNS
from talks import TALKS, turns_of

JOINED = {
    "instruction": "Sort a list in Python",
    "query": "Sort a list in Python\nWhy?",
    "conversation": "Sort a list in Python\nsorted(x)\nWhy?\nIt is built in.",
}
IN_VICUNA = (
    f"{VICUNA_SYSTEM} USER: Sort a list in Python ASSISTANT: sorted(x)</s>"
    "USER: Why? ASSISTANT: It is built in.</s>"
)
MANY = [[("user", f"What is {n} times {n + 1}? " + "Say why. " * (n % 9))] for n in range(40)]


def started(config):
    embedder = Embedder(config, "encoder", "run", "float32", threads=None, gpu=False)
    embedder.start({})
    return embedder


def rows_of(embedder, talks):
    """One row per conversation, and what was counted."""
    ids = [str(number) for number in range(len(talks))]
    turns = pa.array([turns_of(talk) for talk in talks], TURNS)
    table, counts = embedder.run(pa.table({"sample_id": ids, "turns": turns}))
    assert table["sample_id"].to_pylist() == ids
    return table.to_pylist(), counts


def vectors_of(embedder, talks):
    return np.array([row["vector"] for row in rows_of(embedder, talks)[0]], dtype=np.float32)


def reasons_of(rows):
    return [row["failure"] and row["failure"]["reason"] for row in rows]


def causal(folder, **settings):
    return CausalEmbedConfig(model=str(folder), **settings)


@pytest.fixture(scope="module")
def sentence():
    return started(SentenceEmbedConfig())


@pytest.fixture(scope="module")
def llama(tiny_llama):
    return started(causal(tiny_llama, text="conversation"))


@pytest.fixture
def changed_llama(tiny_llama, tmp_path):
    """A copy of the tiny Llama, changed by a function."""

    def change(edit):
        from transformers import AutoModelForCausalLM

        folder = shutil.copytree(tiny_llama, tmp_path / "changed")
        model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
        with torch.no_grad():
            edit(model)
        model.save_pretrained(folder)
        return str(folder)

    return change


def test_sentence_vectors_equal_a_plain_pass(sentence):
    talks = [[("user", text)] for text in JOINED.values()] + [[("user", "word " * 400)]]
    expected = [sentence_vector(packaged_minilm(), talk[0][1], 256) for talk in talks]
    assert np.allclose(vectors_of(sentence, talks), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "text", "pooling"),
    [
        ({"text": "conversation"}, IN_VICUNA, "last_token"),
        ({"text": "conversation", "pooling": "mean"}, IN_VICUNA, "mean"),
        ({"text": "conversation", "template": "plain"}, JOINED["conversation"], "last_token"),
        (
            {"text": "conversation", "template": "chat"},
            "<s>user: Sort a list in Python\nassistant: sorted(x)\nuser: Why?\n"
            "assistant: It is built in.\n",
            "last_token",
        ),
        ({"text": "query"}, JOINED["query"], "mean"),
        ({}, JOINED["instruction"], "mean"),
        ({"pooling": "last_token"}, JOINED["instruction"], "last_token"),
        ({"text": "conversation", "max_tokens": 20}, IN_VICUNA, "last_token"),
    ],
)
def test_causal_vectors_equal_a_plain_pass(tiny_llama, given, text, pooling):
    config = causal(tiny_llama, **given)
    human = [turn for turn in TALKS[1] if turn[0] == "user"]
    turns = {"instruction": human[:1], "query": human, "conversation": TALKS[1]}[config.text]
    found = vectors_of(started(config), [*MANY[:3], turns])[-1]
    expected = causal_vector(tiny_llama, text, pooling, config.max_tokens or 4096)
    assert np.abs(found - expected).max() < 1e-5
    # Not scaled: what a model gives is what is kept.
    assert not np.isclose(np.linalg.norm(found), 1, atol=0.1)


def test_vicuna_is_the_template_of_the_published_model():
    assert as_text(turns_of(TALKS[1]), "vicuna", None) == IN_VICUNA
    assert as_text(turns_of(TALKS[2]), "vicuna", None) == (
        "Be brief. USER: What is the capital of France? ASSISTANT: Paris</s>"
    )


@pytest.mark.parametrize("kind", ["sentence", "llama"])
def test_vectors_in_any_company_are_the_same_bits(kind, request):
    embedder = request.getfixturevalue(kind)
    together = vectors_of(embedder, MANY)

    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(range(len(MANY))), min_size=1, max_size=12, unique=True))
    def check(places):
        assert np.array_equal(vectors_of(embedder, [MANY[n] for n in places]), together[places])

    check()


def test_a_text_that_stands_twice_is_encoded_once(sentence):
    rows, counts = rows_of(sentence, [TALKS[0][:1], TALKS[3][:1], TALKS[0][:1]])
    assert counts["model_calls"] == 2
    assert rows[0]["vector"] == rows[2]["vector"] != rows[1]["vector"]


def test_a_long_text_loses_its_end_and_says_so(tiny_llama):
    talks = [[("user", "one two three four five six seven"), ("assistant", end)] for end in "ab"]
    embedder = started(causal(tiny_llama, text="conversation", max_tokens=12))
    rows, _ = rows_of(embedder, [*talks, [("user", "")]])
    whole, _ = rows_of(started(causal(tiny_llama, text="conversation")), talks)
    assert [row["truncated"] for row in rows[:2] + whole] == [True, True, False, False]
    assert [row["tokens"] for row in rows[:2]] == [row["tokens"] for row in whole]
    assert rows[0]["vector"] == rows[1]["vector"]
    assert whole[0]["vector"] != whole[1]["vector"]


def test_a_long_text_goes_to_quarantine_where_asked(tiny_llama):
    config = causal(tiny_llama, max_tokens=12, overlong="quarantine")
    rows, counts = rows_of(started(config), [[("user", "one")], [("user", "one two " * 30)]])
    assert reasons_of(rows) == [None, "overlong"]
    assert counts["model_calls"] == 1
    assert rows[1]["failure"]["payload"].startswith(b"one two")
    assert "of which 12 fit" in rows[1]["failure"]["error"]


def test_conversations_without_text_have_no_vector(sentence, llama):
    talks = [[], [("user", " \n")], TALKS[0]]
    for embedder in (sentence, llama):
        rows, counts = rows_of(embedder, talks)
        assert reasons_of(rows) == ["no_text", "no_text", None]
        assert counts["model_calls"] == 1
    assert reasons_of(rows_of(sentence, talks[:1])[0]) == ["no_text"]


@pytest.mark.parametrize(("value", "reason"), [(0.0, "zero_vector"), (np.nan, "nan_vector")])
def test_vectors_that_are_zero_or_not_finite_are_set_aside(
    changed_llama, tiny_llama, value, reason
):
    from transformers import AutoTokenizer

    (token,) = AutoTokenizer.from_pretrained(tiny_llama)("z")["input_ids"]

    def edit(model):
        model.model.embed_tokens.weight[token] = value
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()

    # The tokens' own states come through: only a text of this token has none.
    embedder = started(causal(changed_llama(edit)))
    rows, _ = rows_of(embedder, [[("user", "zz")], [("user", "Paris")]])
    assert reasons_of(rows) == [reason, None]
    assert rows[0]["failure"]["payload"] == b"zz"
    assert rows[0]["failure"]["key"] == "encoder 0"


def test_turns_that_a_chat_template_refuses_are_set_aside(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "strict")
    strict = "{% for m in messages %}{{ m.role if m.role != 'tool' else raise_exception('no tools') }}: {{ m.content }}{% endfor %}"  # noqa: E501
    (folder / "chat_template.jinja").write_text(strict)
    embedder = started(causal(folder, text="conversation", template="chat"))
    rows, _ = rows_of(embedder, [TALKS[0], [*TALKS[0], ("tool", "42")]])
    assert reasons_of(rows) == [None, "template"]
    assert "no tools" in rows[1]["failure"]["error"]
