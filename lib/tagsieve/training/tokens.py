"""Conversations as token ids, and which of them are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tagsieve.engines.conversations import Part

IGNORED = -100
"""The label of a token that is not trained on."""


@dataclass(frozen=True)
class Exchange:
    """Token ids of a prompt and of what is answered to it, in their order in a conversation."""

    prompt: list[int]
    own: list[int]


def exchanges_of(
    conversations: Sequence[Sequence[Part]], tokenizer: Any, special: bool
) -> list[list[Exchange]]:
    """The exchanges of each conversation; what follows the last answer is left out.

    A prompt has the ids that the model is given when it is asked: where a token would reach over
    its end into the answer, both are tokenised apart. `special`: whether the tokenizer's own signs
    stand before a conversation; not where a chat template has written them.
    """
    pairs = [_pairs(parts) for parts in conversations]
    end = tokenizer.eos_token
    # A conversation goes on behind an end sign: what follows is tokenised as it is there.
    flat = [("" if n == 0 else end, *pair) for row in pairs for n, pair in enumerate(row)]
    prompts = _ids([lead + prompt for lead, prompt, _ in flat], tokenizer)
    wholes = _ids([lead + prompt + own for lead, prompt, own in flat], tokenizer)
    apart = _ids([end + own for *_, own in flat], tokenizer)
    before = _signs(tokenizer) if special else []
    found = []
    for (lead, *_), prompt, whole, own in zip(flat, prompts, wholes, apart, strict=True):
        answer = whole[len(prompt) :] if whole[: len(prompt)] == prompt else own[1:]
        found.append(Exchange(prompt[1:] if lead else [*before, *prompt], answer))
    rest = iter(found)
    return [[next(rest) for _ in row] for row in pairs]


def _pairs(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """Each text that is answered, with its answer."""
    pairs = []
    prompt = ""
    for part in parts:
        if part.own:
            pairs.append((prompt, part.text))
            prompt = ""
        else:
            prompt += part.text
    return pairs


def _ids(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    if not texts:
        return []
    found: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return found


def _signs(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    return whole[: len(whole) - len(bare)]


def labelled(exchanges: Sequence[Exchange]) -> tuple[list[int], list[int]]:
    """Token ids of a conversation and the label of each: the id itself in answers, else
    `IGNORED`."""
    ids: list[int] = []
    labels: list[int] = []
    for each in exchanges:
        ids += each.prompt + each.own
        labels += [IGNORED] * len(each.prompt) + each.own
    return ids, labels
