"""Scores by the losses of a causal language model: IFD, perplexity, losses.

IFD is of "From Quantity to Quality" (Li et al.): the mean loss of the response given the
instruction, divided by that of the response alone. Losses are in nats, means over tokens. The first
token of a text is predicted from the tokenizer's BOS (EOS where it has none), so that every token
of a response counts, given the instruction or not. Prompt and response are tokenised apart, so that
the response has the same tokens in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jinja2 import TemplateError

from tagsieve.engines.encoders import Array
from tagsieve.engines.llm.prompts import PromptTemplate, load_prompt
from tagsieve.engines.llm.replies import OVERLONG
from tagsieve.engines.logprobs import Losses
from tagsieve.errors import UsageError
from tagsieve.scoring.config import (
    IfdConfig,
    InstructionLossConfig,
    LossScorerConfig,
    ModelScorerConfig,
    PerplexityConfig,
)
from tagsieve.scoring.rows import (
    EMPTY_TEXT,
    NO_RESPONSE,
    REFUSED,
    TRUNCATED,
    Asked,
    Turn,
    Unscorable,
)
from tagsieve.scoring.tokens import Tokens


def response_prompt(config: LossScorerConfig) -> PromptTemplate | None:
    """What comes before the response, None where nothing does. Raises UsageError when it cannot be
    used."""
    if isinstance(config, InstructionLossConfig):
        return None
    if isinstance(config, PerplexityConfig) and config.given == "nothing":
        return None
    return load_prompt(config.prompt, ("instruction",))


def needs_earlier(config: ModelScorerConfig) -> bool:
    """Whether a scorer reads the turns before the one that it scores."""
    return getattr(config, "context", None) == "conversation"


class LossScorer:
    """Scores turns by losses. Raises UsageError for a tokenizer without what the texts need."""

    def __init__(self, config: LossScorerConfig, tokens: Tokens, max_tokens: int) -> None:
        self._config, self._tokens, self._longest = config, tokens, max_tokens
        self._prompt = response_prompt(config)
        self._whole = needs_earlier(config)
        tokenizer = tokens.tokenizer
        found = tokenizer.bos_token_id
        first = tokenizer.eos_token_id if found is None else found
        if first is None:
            raise UsageError(
                f"model {config.model}: its tokenizer has neither BOS nor EOS, from which the "
                "first token of a text is predicted; name another model"
            )
        self._first = (int(first),)
        chat = self._prompt is not None and self._prompt.text is None
        if chat and not tokenizer.chat_template:
            raise UsageError(
                f"score.scorers {config.name}: the model's tokenizer has no chat template, which "
                "the prompt goes through; use a prompt with text, such as wizardlm"
            )

    def ask(self, turns: Sequence[Turn]) -> list[Asked | Unscorable]:
        """What each turn's score needs."""
        if isinstance(self._config, InstructionLossConfig):
            return [self._alone(ids) for ids in self._tokens.ids([t.instruction for t in turns])]
        responses = self._tokens.ids([turn.response or "" for turn in turns])
        if self._prompt is None:
            prompts: list[tuple[int, ...] | Unscorable] = [self._first] * len(turns)
        else:
            prompts = self._prompts(turns)
        return [
            Unscorable(NO_RESPONSE, "the turn has no reply")
            if turn.response is None
            else self._asked(prompt, response)
            for turn, prompt, response in zip(turns, prompts, responses, strict=True)
        ]

    def value(self, losses: Sequence[Array]) -> float:
        """The score, by the losses that were asked for."""
        mean = float(np.mean(losses[0], dtype=np.float64))
        if isinstance(self._config, IfdConfig):
            alone = float(np.mean(losses[1], dtype=np.float64))
            return mean / alone if alone else float("nan")
        if isinstance(self._config, PerplexityConfig):
            return float(np.exp(mean))
        return mean

    def _alone(self, ids: tuple[int, ...]) -> Asked | Unscorable:
        return self._asked(self._first, ids)

    def _asked(
        self, prompt: tuple[int, ...] | Unscorable, text: tuple[int, ...]
    ) -> Asked | Unscorable:
        if isinstance(prompt, Unscorable):
            return prompt
        if not text:
            return Unscorable(EMPTY_TEXT, "the text that is scored has no token")
        room = self._longest - len(prompt)
        if len(text) > room and (self._config.overlong == "quarantine" or room < 1):
            return Unscorable(
                OVERLONG,
                f"{len(prompt)} tokens before the text and {len(text)} of it; the model "
                f"takes {self._longest}",
            )
        cut = text[:room]
        questions = [Losses(prompt + cut, len(prompt))]
        if isinstance(self._config, IfdConfig):
            questions.append(Losses(self._first + cut, 1))
        return Asked(tuple(questions), len(cut), (TRUNCATED,) if len(cut) < len(text) else ())

    def _prompts(self, turns: Sequence[Turn]) -> list[tuple[int, ...] | Unscorable]:
        texts = [self._rendered(turn) for turn in turns]
        ids = self._tokens.ids(["" if isinstance(t, Unscorable) else t for t in texts])
        assert self._prompt is not None
        # A chat template writes the special tokens itself.
        first = self._first if self._prompt.text is not None else ()
        return [
            text if isinstance(text, Unscorable) else first + found
            for text, found in zip(texts, ids, strict=True)
        ]

    def _rendered(self, turn: Turn) -> str | Unscorable:
        """What comes before the response of a turn, as text."""
        assert self._prompt is not None
        asked = self._prompt.render({"instruction": turn.instruction})
        earlier = turn.earlier if self._whole else ()
        if isinstance(asked, str):
            return "".join(self._before(*pair) for pair in earlier) + asked
        before = [{"role": role, "content": content} for role, content in earlier]
        try:
            return str(
                self._tokens.tokenizer.apply_chat_template(
                    before + asked, tokenize=False, add_generation_prompt=True
                )
            )
        except (TemplateError, ValueError) as error:
            return Unscorable(REFUSED, f"{type(error).__name__}: {error}")

    def _before(self, role: str, content: str) -> str:
        """An earlier turn as text."""
        assert self._prompt is not None
        if role == "user":
            return str(self._prompt.render({"instruction": content}))
        return f"{content}\n\n"


def loss_identity(config: LossScorerConfig) -> list[Any]:
    """What decides the score beside its model, for a fingerprint."""
    prompt = response_prompt(config)
    context = None if prompt is None else getattr(config, "context", None)
    return [config.overlong, context, None if prompt is None else prompt.content]
