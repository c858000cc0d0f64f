"""Conversations as text for a causal language model, and which parts of it are an assistant's.

Templates are interfaces of published checkpoints: Vicuna v1.1 (FastChat), Alpaca's two (with and
without input), WizardLM's. `chat` is the model's own chat template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tagsieve.errors import UsageError

Template = Literal["vicuna", "alpaca", "wizardlm", "chat"]

Turns = Sequence[Mapping[str, str]]

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
"""FastChat's conversation template vicuna_v1.1 (lm-sys/FastChat, fastchat/conversation.py)."""

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
"""Stanford Alpaca's prompts (tatsu-lab/stanford_alpaca, train.py)."""

WIZARDLM = "{instruction}\n\n### Response:"
"""WizardLM's prompt; the response follows at once."""


@dataclass(frozen=True)
class Part:
    """A piece of a conversation's text; `own`: whether it is what the assistant writes, its end
    sign among it."""

    text: str
    own: bool


def vicuna_parts(turns: Turns, end: str = "</s>") -> list[Part]:
    """A conversation as Vicuna v1.1 was trained on it: a space after what a person says, `end` and
    nothing else after what the assistant says. A system turn takes the place of the usual system
    sentence."""
    system = "\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    parts = [Part(f"{system or VICUNA_SYSTEM} ", False)]
    for turn in turns:
        if turn["role"] == "assistant":
            parts += [Part("ASSISTANT:", False), Part(f" {turn['content']}{end}", True)]
        elif turn["role"] != "system":
            parts.append(Part(f"{turn['role'].upper()}: {turn['content']} ", False))
    return parts


def instruction_parts(
    turns: Turns, template: Literal["alpaca", "wizardlm"], given: str, end: str
) -> list[Part]:
    """A conversation in a template of single instructions, one after the other.

    `given`: the input of the first instruction, which it ends with, or nothing. `end`: the
    tokenizer's end sign, which follows each response. System turns stand before the first
    instruction, as part of it.
    """
    parts: list[Part] = []
    before: list[str] = []
    for turn in turns:
        if turn["role"] == "assistant":
            prompt = _instruction("\n".join(before), template, given if not parts else "")
            parts += [Part(prompt, False), Part(f"{turn['content']}{end}", True)]
            before = []
        else:
            before.append(turn["content"])
    return parts


def _instruction(text: str, template: str, given: str) -> str:
    if template == "wizardlm":
        return WIZARDLM.replace("{instruction}", text)
    # An ingested record has its input joined to its instruction by a line break.
    if given and text.endswith(f"\n{given}"):
        head, rest = ALPACA_WITH_INPUT.split("{instruction}")
        return f"{head}{text.removesuffix(given)[:-1]}{rest.replace('{input}', given)}"
    return ALPACA.replace("{instruction}", text)


def chat_parts(turns: Turns, tokenizer: Any) -> list[Part]:
    """A conversation in the tokenizer's chat template.

    What the assistant writes is what a turn adds to the text that ends with the generation prompt
    before it, up to the end sign if there is one. Raises UsageError for a template that writes
    earlier turns anew when later ones come, jinja2's TemplateError for turns that it refuses.
    """

    def rendered(count: int, asked: bool) -> str:
        messages = [dict(turn) for turn in turns[:count]]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asked)
        return str(text)

    parts: list[Part] = []
    before, end = "", tokenizer.eos_token
    for place, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        prompt, whole = rendered(place, True), rendered(place + 1, False)
        if not (prompt.startswith(before) and whole.startswith(prompt)):
            raise UsageError(
                "train.template=chat: the model's chat template writes earlier turns anew when "
                "later ones come, so that no part of it is the assistant's alone; set another one"
            )
        own = whole[len(prompt) :]
        if end and end in own:
            own = own[: own.rindex(end) + len(end)]
        parts += [Part(prompt[len(before) :], False), Part(own, True)]
        before = prompt + own
    return parts


def conversation_parts(
    turns: Turns, template: Template, tokenizer: Any, given: str = ""
) -> list[Part]:
    """A conversation in a template, with the tokenizer's own end sign. `given`: as of
    `instruction_parts`."""
    if template == "chat":
        return chat_parts(turns, tokenizer)
    if template == "vicuna":
        return vicuna_parts(turns, tokenizer.eos_token)
    return instruction_parts(turns, template, given, tokenizer.eos_token)


_VICUNA_CHAT = """\
{{%- set told = messages | selectattr("role", "equalto", "system") | map(attribute="content") -%}}
{{{{- (told | join("\n") or {system}) + " " -}}}}
{{%- for turn in messages -%}}
{{%- if turn.role == "assistant" -%}}{{{{- "ASSISTANT: " + turn.content + eos_token -}}}}
{{%- elif turn.role != "system" -%}}{{{{- (turn.role | upper) + ": " + turn.content + " " -}}}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{- "ASSISTANT:" -}}}}{{%- endif -%}}"""

_INSTRUCTION_CHAT = """\
{{%- set ns = namespace(before=[]) -%}}
{{%- for turn in messages -%}}
{{%- if turn.role == "assistant" -%}}
{{{{- {head} + (ns.before | join("\n")) + {tail} + turn.content + eos_token -}}}}
{{%- set ns.before = [] -%}}
{{%- else -%}}{{%- set ns.before = ns.before + [turn.content] -%}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}
{{{{- {head} + (ns.before | join("\n")) + {tail} -}}}}
{{%- endif -%}}"""


def chat_template_of(template: Template, tokenizer: Any) -> str:
    """A template as a chat template (Jinja), so that what was trained in it is asked in it.

    Begins with the sign of the beginning where the tokenizer puts one before texts. The input of
    an alpaca record has no place of its own in it. Of `chat` the tokenizer's own.
    """
    if template == "chat":
        return str(tokenizer.chat_template)
    begin = "{{- bos_token -}}\n" if _begins(tokenizer) else ""
    if template == "vicuna":
        return begin + _VICUNA_CHAT.format(system=_jinja(VICUNA_SYSTEM))
    head, tail = (ALPACA if template == "alpaca" else WIZARDLM).split("{instruction}")
    return begin + _INSTRUCTION_CHAT.format(head=_jinja(head), tail=_jinja(tail))


def _begins(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a sign of the beginning before a text."""
    first = tokenizer("a")["input_ids"][0]
    return tokenizer.bos_token_id is not None and bool(first == tokenizer.bos_token_id)


def _jinja(text: str) -> str:
    """A text as a string of Jinja."""
    return json.dumps(text)
