"""A Llama of a few million random weights with a tokenizer of its own: the real engine's fodder."""

from collections.abc import Iterable
from pathlib import Path

import pytest

TEXTS = (
    '[{"tag": "information retrieval", "explanation": "the user asks for facts"}]',
    "Write a poem about the sea. Please identify tags of user intentions in the query",
    "How do I sort a list of numbers in Python? Translate good morning into Spanish.",
)
FAST = {"enforce_eager": True, "kv_cache_memory_bytes": 64 * 2**20, "max_num_seqs": 64}
"""Engine arguments with which vLLM starts soonest on a CPU."""

CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def make_tiny_llama(
    folder: Path,
    hidden: int = 128,
    layers: int = 2,
    context: int = 4096,
    vocabulary: int = 512,
    texts: Iterable[str] = TEXTS,
) -> Path:
    """Write model and tokenizer; the same arguments give the same files.

    The tokenizer learns from `texts`: of any but those here it makes about a token a character.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> str:
    """Folder of a tiny random Llama."""
    return str(make_tiny_llama(tmp_path_factory.mktemp("tiny-llama")))
