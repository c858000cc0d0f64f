"""Causal language models over given tokens: the same bits in any company, and a plain pass's."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tagsieve.engines.causal import CausalLM
from tagsieve.engines.vectors import device
from tagsieve.errors import UsageError

LENGTHS = [1, 7, 31, 32, 33, 90, 250, 300, *range(5, 125, 3)]


def ids_of(lengths):
    random = np.random.default_rng(0)
    return [random.integers(2, 250, length).tolist() for length in lengths]


def states_of(model, tokens, hidden=False):
    """The states of each text, by its place."""
    found = {}
    for tile in model.tiles(tokens, hidden):
        for line, row in enumerate(tile.rows):
            length = int(tile.mask[line].sum())
            assert tile.ids[line, :length].tolist() == tokens[row]
            found[int(row)] = tile.states[line, :length]
    return [found[row] for row in range(len(tokens))]


@pytest.fixture(scope="module")
def model(tiny_llama):
    return CausalLM(tiny_llama, "float32", device=device())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tiles_in_any_company_give_the_same_bits(tiny_llama, dtype):
    model = CausalLM(tiny_llama, dtype, device=device())
    tokens = ids_of(LENGTHS)
    together = states_of(model, tokens)
    backwards = states_of(model, tokens[::-1])[::-1]
    alone = [states_of(model, [text])[0] for text in tokens[:12]]
    assert all(map(torch.equal, together, backwards))
    assert all(map(torch.equal, together[:12], alone))


def test_tiles_give_the_states_and_logits_of_a_plain_pass(model, tiny_llama):
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    tokens = ids_of(LENGTHS[:10])
    with torch.inference_mode():
        for ids, states in zip(tokens, states_of(model, tokens, hidden=True), strict=True):
            expected = plain(input_ids=torch.tensor([ids]), output_hidden_states=True)
            assert torch.allclose(states.cpu(), expected.hidden_states[-1][0], atol=1e-5)
            assert torch.allclose(model.logits(states).cpu(), expected.logits[0], atol=1e-5)


def test_tiles_with_hidden_give_float32(tiny_llama):
    model = CausalLM(tiny_llama, "bfloat16")
    tokens = ids_of([5, 9])
    wide, narrow = states_of(model, tokens, hidden=True), states_of(model, tokens)
    assert (wide[0].dtype, narrow[0].dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(wide[1], narrow[1].float())
    assert wide[1].shape == (9, model.dimension)


def test_max_tokens_is_the_least_of_setting_and_model(model, tiny_llama):
    assert model.max_tokens == 4096
    assert CausalLM(tiny_llama, "float32", max_tokens=5000).max_tokens == 4096
    short = CausalLM(tiny_llama, "float32", max_tokens=50)
    assert short.max_tokens == 50
    assert len(states_of(short, ids_of([50, 3]))[0]) == 50
    with pytest.raises(ValueError, match="a text of 51 tokens; at most 50 fit"):
        states_of(short, ids_of([51]))


def test_a_folder_without_a_causal_model_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no causal language model"):
        CausalLM(str(tmp_path), "float32")


def test_a_model_that_caps_its_logits_is_refused(tmp_path, tiny_llama):
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    config = Gemma2Config(
        vocab_size=512, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.01,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"\(gemma2\) scales or caps its logits"):
        CausalLM(str(tmp_path), "float32")
