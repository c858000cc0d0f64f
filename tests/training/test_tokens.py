"""Token ids and what is trained on, token by token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagsieve.engines.conversations import (
    VICUNA_SYSTEM,
    Part,
    chat_template_of,
    conversation_parts,
)
from tagsieve.training.tokens import exchanges_of, labelled
from tokenizers_of import byte_level, sentence_piece
from toys import TALK

CHATML = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def tokens(tokenizer, parts, special=True):
    """The tokens of a conversation, those that are trained on in brackets."""
    (exchanges,) = exchanges_of([parts], tokenizer, special)
    ids, labels = labelled(exchanges)
    names = tokenizer.convert_ids_to_tokens(ids)
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    return [name if label == -100 else f"[{name}]"
            for name, label in zip(names, labels, strict=True)]  # fmt: skip


def spelled(marked):
    """What `tokens` gives where each character is a token: text with [answers] and signs."""
    found, inside, rest = [], False, marked
    while rest:
        if rest[0] in "[]":
            inside, rest = rest[0] == "[", rest[1:]
            continue
        sign = next((s for s in ("</s>", "<s>") if rest.startswith(s)), rest[0])
        name = sign.replace(" ", "Ġ").replace("\n", "Ċ")
        found.append(f"[{name}]" if inside else name)
        rest = rest[len(sign) :]
    return found


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "vicuna",
            f"<s>{VICUNA_SYSTEM} USER: Hi ASSISTANT:[ Hello.</s>]USER: Bye ASSISTANT:"
            "[ See you.</s>]",
        ),
        (
            "alpaca",
            "<s>Below is an instruction that describes a task. Write a response that appropriately "
            "completes the request.\n\n### Instruction:\nHi\n\n### Response:[Hello.</s>]"
            "Below is an instruction that describes a task. Write a response that appropriately "
            "completes the request.\n\n### Instruction:\nBye\n\n### Response:[See you.</s>]",
        ),
        ("wizardlm", "<s>Hi\n\n### Response:[Hello.</s>]Bye\n\n### Response:[See you.</s>]"),
        # The end sign is trained on, what the template writes behind it is not.
        (
            "chat",
            "<|user|>\nHi</s>\n<|assistant|>\n[Hello.</s>]\n<|user|>\nBye</s>\n<|assistant|>\n"
            "[See you.</s>]",
        ),
    ],
)
def test_each_token_of_each_template(template, expected):
    tokenizer = byte_level(begin="<s>", chat_template=CHATML)
    parts = conversation_parts(TALK, template, tokenizer)
    assert tokens(tokenizer, parts, special=template != "chat") == spelled(expected)


def test_alpaca_with_its_input():
    tokenizer = byte_level()
    turns = [{"role": "user", "content": "Add\n1, 2"}, {"role": "assistant", "content": "3"}]
    expected = (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd\n\n### Input:\n1, 2\n\n### Response:[3</s>]"
    )
    parts = conversation_parts(turns, "alpaca", tokenizer, "1, 2")
    assert tokens(tokenizer, parts) == spelled(expected)


def test_a_prompt_has_the_tokens_that_the_model_is_asked_with():
    # As a whole "score: 3" would end in one token, which no prompt that ends in a space leads to.
    tokenizer = byte_level([("Ġ", "3")], trim=True)
    assert tokenizer.tokenize("t: 3") == ["t", ":", "Ġ3"]
    parts = [Part("t: ", False), Part("3</s>", True)]
    assert tokens(tokenizer, parts) == ["t", ":", "Ġ", "[3]", "[</s>]"]
    # Here the answer begins with the space, so the token is the answer's.
    parts = [Part("t:", False), Part(" 3</s>", True)]
    assert tokens(tokenizer, parts) == ["t", ":", "[Ġ3]", "[</s>]"]
    # A sign that would melt with the end of the prompt.
    tokenizer = byte_level([(":", "*")])
    parts = [Part("R:", False), Part("*b*</s>", True)]
    assert tokens(tokenizer, parts) == ["R", ":", "[*]", "[b]", "[*]", "[</s>]"]


def test_llama_2_puts_a_space_before_the_first_word_alone():
    tokenizer = sentence_piece(["▁USER:", "USER:", "▁Hi", "▁ASSISTANT:", "▁yes", "▁no", "▁Be."])
    turns = [
        {"role": "system", "content": "Be."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "no"},
    ]
    parts = conversation_parts(turns, "vicuna", tokenizer)
    assert tokens(tokenizer, parts) == [
        "<s>", "▁Be.", "▁USER:", "▁Hi", "▁ASSISTANT:", "[▁yes]", "[</s>]",
        "USER:", "▁Hi", "▁ASSISTANT:", "[▁no]", "[</s>]",
    ]  # fmt: skip
    whole = "".join(part.text for part in parts)
    assert tokenizer.tokenize(whole) == [name.strip("[]") for name in tokens(tokenizer, parts)[1:]]


def test_what_no_answer_follows_is_left_out():
    tokenizer = byte_level()
    parts = [Part("a", False), Part("b</s>", True), Part("c", False)]
    assert tokens(tokenizer, parts) == ["a", "[b]", "[</s>]"]
    assert exchanges_of([[Part("a", False)], []], tokenizer, True) == [[], []]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), st.booleans())
def test_nothing_is_lost_or_masked_wrongly(pairs, merged):
    merges = [("Ġ", "a"), ("a", "b"), (":", "a"), ("0", "0")] if merged else []
    tokenizer = byte_level(merges, begin="<s>")
    parts = [
        part for prompt, own in pairs for part in (Part(prompt, False), Part(f"{own}</s>", True))
    ]
    (found,) = exchanges_of([parts], tokenizer, True)
    assert len(found) == len(pairs)
    for number, (each, (prompt, own)) in enumerate(zip(found, pairs, strict=True)):
        lead = "<s>" if number == 0 else ""
        assert tokenizer.decode(each.prompt) == lead + prompt
        assert tokenizer.decode(each.own) == f"{own}</s>"
        alone = tokenizer(prompt, add_special_tokens=number == 0)["input_ids"]
        assert each.prompt == alone


@pytest.mark.parametrize("template", ["vicuna", "alpaca", "wizardlm", "chat"])
@pytest.mark.parametrize("begin", [None, "<s>"])
def test_what_was_trained_in_a_template_is_asked_in_it(template, begin):
    tokenizer = byte_level(begin=begin, chat_template=CHATML)
    turns = [{"role": "system", "content": 'Be "brief" {{ }}\n.'}, *TALK]
    for some in (turns, TALK):
        parts = conversation_parts(some, template, tokenizer)
        (exchanges,) = exchanges_of([parts], tokenizer, template != "chat")
        tokenizer.chat_template = chat_template_of(template, tokenizer)
        asked = tokenizer.apply_chat_template(
            some[:-1], add_generation_prompt=True, return_dict=False
        )
        ids, _ = labelled(exchanges)
        assert ids[: len(ids) - len(exchanges[-1].own)] == asked
