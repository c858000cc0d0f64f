"""Conversations as text: every character where the published templates have it."""

import pytest

from tagsieve.engines.conversations import (
    VICUNA_SYSTEM,
    chat_parts,
    instruction_parts,
    vicuna_parts,
)
from tagsieve.errors import UsageError
from toys import TALK


def told(parts):
    """The text, with what is the assistant's between brackets."""
    return "".join(f"[{part.text}]" if part.own else part.text for part in parts)


def test_vicuna():
    assert told(vicuna_parts(TALK)) == (
        f"{VICUNA_SYSTEM} USER: Hi ASSISTANT:[ Hello.</s>]USER: Bye ASSISTANT:[ See you.</s>]"
    )
    system = [{"role": "system", "content": "Be brief."}, *TALK[:2]]
    assert told(vicuna_parts(system)) == "Be brief. USER: Hi ASSISTANT:[ Hello.</s>]"


def test_alpaca_with_and_without_input():
    plain = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{}\n\n### Response:"
    )
    assert told(instruction_parts(TALK, "alpaca", "", "</s>")) == (
        f"{plain.format('Hi')}[Hello.</s>]{plain.format('Bye')}[See you.</s>]"
    )
    asked = [{"role": "user", "content": "Add {input}\n1 and {instruction}"}, TALK[1]]
    assert told(instruction_parts(asked, "alpaca", "1 and {instruction}", "</s>")) == (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd {input}\n\n### Input:\n1 and {instruction}\n\n### Response:"
        "[Hello.</s>]"
    )
    # An input that the turn does not end with is no input of it.
    assert "### Input" not in told(instruction_parts(TALK, "alpaca", "other", "</s>"))


def test_wizardlm():
    assert told(instruction_parts(TALK[:2], "wizardlm", "", "<e>")) == (
        "Hi\n\n### Response:[Hello.<e>]"
    )


class Tokenizer:
    """A chat template of a few lines."""

    eos_token = "<|end|>"

    def __init__(self, forgets=False):
        self._forgets = forgets

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize
        shown = messages[-2:] if self._forgets else messages
        text = "".join(f"<|{m['role']}|>{m['content']}<|end|>\n" for m in shown)
        return text + ("<|assistant|>" if add_generation_prompt else "")


def test_chat_templates_of_models():
    assert told(chat_parts(TALK, Tokenizer())) == (
        "<|user|>Hi<|end|>\n<|assistant|>[Hello.<|end|>]\n"
        "<|user|>Bye<|end|>\n<|assistant|>[See you.<|end|>]"
    )


def test_a_chat_template_that_writes_earlier_turns_anew_is_refused():
    with pytest.raises(UsageError, match="writes earlier turns anew when later ones come"):
        chat_parts(TALK, Tokenizer(forgets=True))
