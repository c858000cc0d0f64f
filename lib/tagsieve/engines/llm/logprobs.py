"""Losses and next-token odds by vLLM's log-probabilities of prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from tagsieve.engines.encoders import Array
from tagsieve.engines.llm.config import VllmConfig
from tagsieve.engines.llm.fitting import load_tokenizer
from tagsieve.engines.llm.vllm import VllmModel
from tagsieve.engines.logprobs import Losses, NextToken, Question
from tagsieve.errors import RunError


class VllmLogprobs:
    """Answers questions (`tagsieve.engines.logprobs`) by a model in vLLM.

    One request for each, batched by vLLM, so its last digits depend on the others. `max_tokens` is
    one less than the context: vLLM always generates a token.
    """

    def __init__(self, config: VllmConfig) -> None:
        self._model, self._config = VllmModel(config), config

    async def start(self) -> None:
        """Load the model. Raises RunError with vLLM's own words when it does not start."""
        self.tokenizer: Any = load_tokenizer(self._config.model, self._config.revision)
        self._model.start({})
        self.max_tokens = self._model.context - 1

    async def answer(self, questions: Sequence[Question]) -> list[Array]:
        """As `LogprobEngine`. Raises EngineDied, and RunError when a request ends without an
        answer."""
        return list(await asyncio.gather(*map(self._one, questions)))

    async def _one(self, question: Question) -> Array:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            prompt_logprobs=0 if isinstance(question, Losses) else None,
            logprob_token_ids=list(question.among) if isinstance(question, NextToken) else None,
        )
        output = await self._model.output(list(question.tokens), sampling)
        if output is None:
            raise RunError("vLLM ended a request without an answer")
        if isinstance(question, Losses):
            return _losses(question, output.prompt_logprobs)
        odds = output.outputs[0].logprobs[0]
        return np.array([odds[token].logprob for token in question.among], dtype=np.float32)


def _losses(question: Losses, odds: Sequence[Any]) -> Array:
    places = range(question.start, len(question.tokens))
    found = [-odds[place][question.tokens[place]].logprob for place in places]
    return np.array(found, dtype=np.float32)
