"""Fingerprints of encoders, what a model's own files decide, and settings that are refused."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from tagsieve.embedding import CausalEmbedConfig, SentenceEmbedConfig, encoder_fingerprint
from tagsieve.embedding.encoders import longest_of, pooling_of, template_of
from tagsieve.engines.encoders import SentenceEncoder, buckets_to, packaged_minilm
from tagsieve.errors import UsageError


@pytest.fixture
def copied(tmp_path):
    """A copy of the packaged encoder, for its files to be changed."""
    return shutil.copytree(packaged_minilm(), tmp_path / "copy")


def test_fingerprint_says_which_text_and_ignores_where_and_how_fast(copied):
    packaged = encoder_fingerprint(SentenceEmbedConfig())
    assert packaged.startswith("minilm-instruction-")
    elsewhere = SentenceEmbedConfig(
        model=str(copied), replicas=3, cpus_per_replica=1, commit_rows=9, restarts=0
    )
    assert encoder_fingerprint(elsewhere).split("-")[-1] == packaged.split("-")[-1]


def test_fingerprint_differs_with_all_that_decides_the_vectors(tiny_llama, tmp_path):
    shared = {"model": tiny_llama, "dtype": "float32", "text": "conversation"}
    other = shutil.copytree(tiny_llama, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    changes = [
        {}, {"dtype": "bfloat16"}, {"text": "query"}, {"text": "instruction"},
        {"pooling": "mean"}, {"template": "plain"}, {"template": "chat"}, {"max_tokens": 100},
        {"overlong": "quarantine"}, {"model": str(other)},
    ]  # fmt: skip
    found = {encoder_fingerprint(CausalEmbedConfig(**shared | change)) for change in changes}
    assert len(found) == len(changes)
    named = {"pooling": "last_token", "template": "vicuna"}
    assert encoder_fingerprint(CausalEmbedConfig(**shared | named)) in found


def test_pooling_of_a_sentence_encoder_is_its_own(copied):
    config = SentenceEmbedConfig(model=str(copied))
    file = copied / "1_Pooling" / "config.json"
    told = {
        '{"pooling_mode": "cls"}': "first_token",
        '{"pooling_mode": "lasttoken"}': "last_token",
        '{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}': "mean",
        '{"pooling_mode_lasttoken": true}': "last_token",
    }
    for text, pooling in told.items():
        file.write_text(text)
        assert pooling_of(config, str(copied)) == pooling
    file.write_text('{"pooling_mode": ["cls", "mean"]}')
    with pytest.raises(UsageError, match=r"embed.pooling: .* is cls, mean, .*set mean, first"):
        encoder_fingerprint(config)
    fixed = config.model_copy(update={"pooling": "mean"})
    assert encoder_fingerprint(fixed)


@pytest.mark.parametrize("pooling", ["first_token", "last_token"])
def test_sentence_encoder_pools_as_told(pooling):
    from sentence_transformers import SentenceTransformer

    texts = ["Write a poem about the sea.", "Why?", "word " * 40]
    encoder = SentenceEncoder(
        packaged_minilm(), "float32", buckets=buckets_to(256), pooling=pooling
    )
    reference = SentenceTransformer(packaged_minilm(), device="cpu")
    reference[1].pooling_mode = {"first_token": "cls", "last_token": "lasttoken"}[pooling]
    assert np.allclose(encoder.encode(texts), reference.encode(texts), atol=1e-5)


def test_longest_text_is_the_models_own_up_to_its_positions(copied):
    assert longest_of(SentenceEmbedConfig(), packaged_minilm()) == 256
    assert longest_of(SentenceEmbedConfig(max_tokens=512), packaged_minilm()) == 512
    (copied / "sentence_bert_config.json").unlink()
    assert longest_of(SentenceEmbedConfig(), str(copied)) == 512


@pytest.mark.parametrize("longest", [3, 4, 5, 17, 32, 256, 300, 8192])
def test_buckets_rise_to_the_longest_text(longest):
    buckets = buckets_to(longest)
    assert list(buckets) == sorted(set(buckets))
    assert buckets[-1] == longest
    steps = [(b - a) / a for a, b in pairwise(buckets) if a >= 32]
    assert all(step <= 0.25 for step in steps)


def test_template_is_for_conversations_of_causal_models(tiny_llama):
    given = {"model": tiny_llama, "template": "vicuna"}
    with pytest.raises(ValidationError, match="template vicuna is for conversations"):
        CausalEmbedConfig(**given)
    assert template_of(CausalEmbedConfig(**given, text="conversation")) == "vicuna"
    assert template_of(CausalEmbedConfig(model=tiny_llama)) == "plain"
    assert template_of(SentenceEmbedConfig(text="conversation")) == "plain"


def test_settings_that_the_model_cannot_meet_are_refused(copied, tiny_llama, tmp_path):
    with pytest.raises(UsageError, match=r"embed.max_tokens=513: .* at most 512 tokens"):
        encoder_fingerprint(SentenceEmbedConfig(max_tokens=513))
    with pytest.raises(UsageError, match="no such folder"):
        encoder_fingerprint(SentenceEmbedConfig(model=str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"embed.model=.*/empty: .* no config.json"):
        encoder_fingerprint(CausalEmbedConfig(model=str(tmp_path / "empty")))
    plain = shutil.copytree(tiny_llama, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match=r"embed.template=chat: .* set vicuna or plain"):
        encoder_fingerprint(
            CausalEmbedConfig(model=str(plain), text="conversation", template="chat")
        )
    modules = json.loads((copied / "modules.json").read_text())
    modules.insert(
        2, {"name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    )
    (copied / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UsageError, match=r"its vectors also need Dense"):
        encoder_fingerprint(SentenceEmbedConfig(model=str(copied)))
