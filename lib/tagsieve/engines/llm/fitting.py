"""Prompts that fit a context: rendered, tokenised, and cut in the middle of one field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tagsieve.engines.llm.prompts import PromptTemplate
from tagsieve.errors import RunError, UsageError

MARK = " … "
"""Stands where a text lost its middle."""

_TRIES = 8


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits: its token ids, its fields as they are in it, whether one was cut."""

    tokens: list[int]
    fields: Mapping[str, str]
    cut: bool = False


@dataclass(frozen=True)
class TooLong:
    """A prompt that does not fit, and was not to be cut."""

    tokens: int


def load_tokenizer(model: str, revision: str | None = None) -> Any:
    """The tokenizer of a folder or hub model; UsageError when there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError) as error:
        raise UsageError(f"no tokenizer at {model!r}: {str(error).splitlines()[0]}") from error


class Fitter:
    """Renders a template for a model and keeps it within `limit` tokens.

    A prompt that is too long loses the middle of its field `cut`: the first and last words say
    most of what is asked. None: nothing is cut, and `fit` tells what is too long. Raises RunError
    when the template needs a chat template that the tokenizer lacks, or when it alone leaves no
    room for the field.
    """

    def __init__(
        self, tokenizer: Any, template: PromptTemplate, limit: int | None, cut: str | None
    ) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._limit, self._cut = limit, cut
        if template.text is None and not getattr(tokenizer, "chat_template", None):
            raise RunError(
                f"the model's tokenizer has no chat template, which prompt {template.name!r} goes "
                "through; use a prompt with text, such as instagger_paper"
            )
        if limit is not None and cut is not None:
            alone = len(self.tokens([{cut: ""}])[0])
            if alone + 16 > limit:
                raise RunError(
                    f"prompt {template.name!r} has {alone} tokens without a query, and the context "
                    f"leaves {limit} for both; raise max_model_len (max_prompt_tokens, "
                    "max_tokens), or lower decoding.max_tokens"
                )

    def tokens(self, prompts: Sequence[Mapping[str, str]]) -> list[list[int]]:
        """Token ids of the whole prompts as the model sees them."""
        texts = [self._text(fields) for fields in prompts]
        # A chat template writes the special tokens itself.
        special = self._template.text is not None
        found: list[list[int]] = self._tokenizer(
            texts, add_special_tokens=special, return_attention_mask=False, verbose=False
        )["input_ids"]
        return found

    def _text(self, fields: Mapping[str, str]) -> str:
        prompt = self._template.render(fields)
        if isinstance(prompt, str):
            return prompt
        return str(
            self._tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        )

    def fit(self, prompts: Sequence[Mapping[str, str]]) -> list[Fitted | TooLong]:
        """Each prompt, cut where it must be."""
        return [
            Fitted(ids, fields)
            if self._limit is None or len(ids) <= self._limit
            else self._shortened(ids, fields, self._limit)
            for ids, fields in zip(self.tokens(prompts), prompts, strict=True)
        ]

    def _shortened(self, ids: list[int], fields: Mapping[str, str], limit: int) -> Fitted | TooLong:
        if self._cut is None:
            return TooLong(len(ids))
        text = fields[self._cut]
        places = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        keep = len(places) - (len(ids) - limit)
        for _ in range(_TRIES):
            # Tokens at the seams may differ from those of the whole text, by a few.
            keep -= 4
            if keep < 2:
                break
            head, tail = places[: keep - keep // 2], places[len(places) - keep // 2 :]
            shorter = text[: head[-1][1]] + MARK + text[tail[0][0] :]
            cut_fields = {**fields, self._cut: shorter}
            found = self.tokens([cut_fields])[0]
            if len(found) <= limit:
                return Fitted(found, cut_fields, cut=True)
            keep -= len(found) - limit
        return TooLong(len(ids))
