"""DEITA's complexity and quality scorers, without generation.

The published scorers (hkust-nlp/deita-complexity-scorer, hkust-nlp/deita-quality-scorer) answer
their template with a digit from "1" to "6". The score is the expected value of the digit, by the
softmax over those six tokens' logits after the template (the DEITA paper; METHODS.md, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tagsieve.engines.encoders import Array
from tagsieve.engines.llm.fitting import Fitter, TooLong
from tagsieve.engines.llm.prompts import PromptTemplate, load_prompt
from tagsieve.engines.llm.replies import OVERLONG
from tagsieve.engines.logprobs import NextToken
from tagsieve.errors import UsageError
from tagsieve.scoring.config import DeitaConfig
from tagsieve.scoring.rows import NO_RESPONSE, TRUNCATED, Asked, Turn, Unscorable

DIGITS = ("1", "2", "3", "4", "5", "6")


def deita_prompt(config: DeitaConfig) -> PromptTemplate:
    """The prompt of a scorer; UsageError when it cannot be used."""
    fields = ("instruction",) if config.what == "complexity" else ("instruction", "response")
    return load_prompt(config.prompt or f"deita_{config.what}", fields)


def digit_tokens(config: DeitaConfig, tokenizer: Any) -> tuple[int, ...]:
    """The ids of the six tokens; UsageError when one of them is no token of its own."""
    ids = []
    for digit in DIGITS:
        found = tokenizer.convert_tokens_to_ids(digit)
        if found is None or tokenizer.convert_ids_to_tokens(found) != digit:
            raise UsageError(
                f"score.scorers {config.name}: the tokenizer of {config.model} has no token "
                f'"{digit}", and the score is the expected value over the tokens "1" to "6"; name '
                "a checkpoint whose tokenizer has each digit as one token"
            )
        ids.append(int(found))
    return tuple(ids)


class DeitaScorer:
    """Scores turns by the next token's odds. Raises UsageError as `digit_tokens` and
    `deita_prompt` do, RunError for a template that the model has no room for."""

    def __init__(self, config: DeitaConfig, tokenizer: Any, max_tokens: int) -> None:
        self._config, self._longest = config, max_tokens
        self._digits = digit_tokens(config, tokenizer)
        may_lose = "instruction" if config.what == "complexity" else "response"
        cut = may_lose if config.overlong == "truncate" else None
        self._fitter = Fitter(tokenizer, deita_prompt(config), max_tokens, cut)

    def ask(self, turns: Sequence[Turn]) -> list[Asked | Unscorable]:
        """What each turn's score needs."""
        fitted = self._fitter.fit(
            [{"instruction": t.instruction, "response": t.response or ""} for t in turns]
        )
        asked: list[Asked | Unscorable] = []
        for turn, prompt in zip(turns, fitted, strict=True):
            if self._config.what == "quality" and turn.response is None:
                asked.append(Unscorable(NO_RESPONSE, "the turn has no reply"))
            elif isinstance(prompt, TooLong):
                why = f"the prompt has {prompt.tokens} tokens; the model takes {self._longest}"
                asked.append(Unscorable(OVERLONG, why))
            else:
                question = NextToken(tuple(prompt.tokens), self._digits)
                flags = (TRUNCATED,) if prompt.cut else ()
                asked.append(Asked((question,), len(prompt.tokens), flags))
        return asked

    def value(self, odds: Sequence[Array]) -> float:
        """The expected digit."""
        logits = odds[0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        return float(shares @ np.arange(1, len(DIGITS) + 1) / shares.sum())


def deita_identity(config: DeitaConfig) -> list[Any]:
    """What decides the score beside its model, for a fingerprint."""
    return [config.overlong, deita_prompt(config).content]
