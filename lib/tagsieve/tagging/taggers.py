"""Which tagger a config is of: its fingerprint, and the actors that run it."""

from __future__ import annotations

from functools import partial
from typing import Any

from tagsieve.engines.actors import ActorSpec, chunks_of
from tagsieve.engines.config import RayConfig
from tagsieve.engines.encoders import dtype_of
from tagsieve.engines.llm.asking import check_llm, llm_actors
from tagsieve.engines.ray import share_of_cores
from tagsieve.ledger import fingerprint
from tagsieve.tagging.config import (
    CascadeConfig,
    MemoryTaggerConfig,
    SingleTaggerConfig,
    TagConfig,
)
from tagsieve.tagging.llm import LlmTagger, killed_by, llm_fingerprint
from tagsieve.tagging.memory import MemoryTagger, memory_fingerprint

MEMORY_CHUNK_ROWS = 2048
"""Queries of one chunk of the memory tagger: enough to fill the encoder's tiles."""


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


def check_tagger(config: TagConfig, ray_config: RayConfig, setting: str = "tag") -> None:
    """Refuse what an embedded Ray can be seen to lack. Raises UsageError, naming the setting."""
    if isinstance(config, CascadeConfig):
        check_llm(config.llm, ray_config, f"{setting}.llm")
    elif not isinstance(config, MemoryTaggerConfig):
        check_llm(config, ray_config, setting)


def actors_of(
    config: SingleTaggerConfig,
    tagger: str,
    run_id: str,
    ray_config: RayConfig,
    setting: str = "tag",
) -> ActorSpec:
    """The actors of a tagger. `setting`: what the config is in the recipe, for messages."""
    arguments: dict[str, Any] = {"config": config, "tagger": tagger, "run_id": run_id}
    killed = partial(killed_by, tagger, run_id)
    if not isinstance(config, MemoryTaggerConfig):
        arguments["setting"] = setting
        return llm_actors(config, LlmTagger, arguments, killed, "tag", ray_config)
    threads = config.cpus_per_replica or share_of_cores(ray_config, config.replicas)
    chunk, chunks = chunks_of(config.commit_rows, MEMORY_CHUNK_ROWS, 2 * MEMORY_CHUNK_ROWS)
    return ActorSpec(
        MemoryTagger,
        arguments | {"dtype": dtype_of(config.dtype), "threads": threads},
        killed_by=killed,
        label="tag",
        replicas=config.replicas,
        cpus=threads,
        chunk_rows=chunk,
        in_flight=chunks,
        restarts=config.restarts,
    )
