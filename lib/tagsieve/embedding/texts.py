"""Turns as one text, and texts as tokens that fit a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tagsieve.embedding.config import Template
from tagsieve.engines.conversations import Turns, vicuna_parts


def as_text(turns: Turns, template: Template, tokenizer: Any) -> str:
    """One text of some turns; empty where they say nothing.

    Raises jinja2's TemplateError when the model's chat template refuses the turns.
    """
    if not any(turn["content"].strip() for turn in turns):
        return ""
    if template == "vicuna":
        return "".join(part.text for part in vicuna_parts(turns))
    if template == "chat":
        messages = [dict(turn) for turn in turns]
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    return "\n".join(turn["content"] for turn in turns)


def fitted(
    tokenizer: Any, texts: Sequence[str], longest: int, special: bool
) -> tuple[list[list[int]], list[int]]:
    """Token ids of texts (at least one), of which at most the first `longest` are kept, and how
    many there were.

    `special`: with the tokenizer's special tokens; those at the end stay when a text is cut.
    """
    asked: dict[str, Any] = {
        "add_special_tokens": special,
        "return_attention_mask": False,
        "return_token_type_ids": False,
        "verbose": False,
    }
    tokens: list[list[int]] = tokenizer(list(texts), truncation=False, **asked)["input_ids"]
    counts = [len(ids) for ids in tokens]
    tokenizer.truncation_side = "right"
    for place, count in enumerate(counts):
        if count > longest:
            cut = tokenizer(texts[place], truncation=True, max_length=longest, **asked)
            tokens[place] = cut["input_ids"]
    return tokens, counts
