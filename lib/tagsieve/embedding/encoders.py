"""Which encoder a config is of: its files, its settings where none are given, its fingerprint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tagsieve.embedding.config import CausalEmbedConfig, EmbedConfig, SentenceEmbedConfig, Template
from tagsieve.engines.conversations import VICUNA_SYSTEM
from tagsieve.engines.encoders import Dtype, Pooling, cpu_dtype, packaged_minilm
from tagsieve.engines.models import model_digest, model_folder
from tagsieve.engines.ray import count_gpus
from tagsieve.errors import UsageError
from tagsieve.ledger import fingerprint

_POOLINGS: dict[str, Pooling] = {
    "mean": "mean",
    "mean_tokens": "mean",
    "cls": "first_token",
    "cls_token": "first_token",
    "lasttoken": "last_token",
}
"""sentence-transformers' names of poolings, today's and the older ones, in this project's words."""

_MODULES = {"Transformer", "Pooling", "Normalize"}
"""Modules of a sentence encoder that are done here."""


def encoder_fingerprint(config: EmbedConfig) -> str:
    """A readable name, with the text that is embedded, and a hash of all that decides the vectors.

    Raises UsageError when the model is not there or cannot be used with these settings.
    """
    folder = folder_of(config)
    _check(config, folder)
    template = template_of(config)
    parts = [
        config.kind,
        model_digest(folder),
        dtype_of(config),
        config.text,
        pooling_of(config, folder),
        [template, VICUNA_SYSTEM] if template == "vicuna" else template,
        config.max_tokens,
        config.overlong,
    ]
    # It names a partition: delta-rs loses track of some signs in such names.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(config.model or "minilm").name)
    return f"{name}-{config.text}-{fingerprint(*parts)[:12]}"


def folder_of(config: EmbedConfig) -> str:
    """Where the model lies; UsageError when it is neither a folder nor to be had from the hub."""
    return model_folder(config.model, config.revision) if config.model else packaged_minilm()


def template_of(config: EmbedConfig) -> Template:
    """How turns become one text."""
    if isinstance(config, SentenceEmbedConfig) or config.text != "conversation":
        return "plain"
    return config.template or "vicuna"


def pooling_of(config: EmbedConfig, folder: str) -> Pooling:
    """Which states make the vector."""
    if config.pooling is not None:
        return config.pooling
    if isinstance(config, CausalEmbedConfig):
        return "last_token" if config.text == "conversation" else "mean"
    return _own_pooling(folder)


def dtype_of(config: EmbedConfig) -> Dtype:
    """The precision of the model."""
    if config.dtype != "auto":
        return config.dtype
    # Ray is asked for GPUs only where nothing else decides: its import takes a second.
    if config.gpus_per_replica or cpu_dtype() == "bfloat16" or count_gpus():
        return "bfloat16"
    return "float32"


def longest_of(config: SentenceEmbedConfig, folder: str) -> int:
    """The longest text of a sentence encoder, in tokens."""
    own = _read(folder, "sentence_bert_config.json").get("max_seq_length")
    return int(config.max_tokens or own or _positions(folder))


def _check(config: EmbedConfig, folder: str) -> None:
    if not (Path(folder) / "config.json").is_file():
        raise UsageError(f"embed.model={config.model}: {folder} has no config.json, so no model")
    most = _positions(folder)
    if config.max_tokens is not None and config.max_tokens > most:
        raise UsageError(
            f"embed.max_tokens={config.max_tokens}: the model takes at most {most} tokens"
        )
    if isinstance(config, SentenceEmbedConfig):
        other = [name for name in _modules(folder) if name not in _MODULES]
        if other:
            raise UsageError(
                f"embed.model={config.model}: its vectors also need {', '.join(other)}, which is "
                "not done here; name a model of a transformer and a pooling alone"
            )
    elif template_of(config) == "chat" and not _has_chat_template(folder):
        raise UsageError(
            f"embed.template=chat: {config.model} has no chat template; set vicuna or plain"
        )


def _own_pooling(folder: str) -> Pooling:
    """How a sentence encoder's own files say that its states are pooled."""
    path = _modules(folder).get("Pooling", "1_Pooling")
    told = _read(f"{folder}/{path}", "config.json")
    modes = told.get("pooling_mode") or [
        name.removeprefix("pooling_mode_")
        for name, used in told.items()
        if name.startswith("pooling_mode_") and used is True
    ]
    names = [modes] if isinstance(modes, str) else modes or ["mean"]
    if len(names) != 1 or names[0] not in _POOLINGS:
        raise UsageError(
            f"embed.pooling: the model's own is {', '.join(names)}, which is not done here; set "
            "mean, first_token or last_token"
        )
    return _POOLINGS[names[0]]


def _modules(folder: str) -> dict[str, str]:
    """The parts of a sentence encoder by their names, and where their files lie."""
    listed = _read(folder, "modules.json") or []
    return {module["type"].rsplit(".", 1)[-1]: module["path"] for module in listed}


def _positions(folder: str) -> int:
    """The longest text that a model can take, in tokens."""
    told = _read(folder, "config.json")
    limits = [
        (told.get("text_config") or told).get("max_position_embeddings"),
        _read(folder, "tokenizer_config.json").get("model_max_length"),
    ]
    # Tokenizers that know no limit name one of 10^30.
    return int(min((limit for limit in limits if limit), default=10**9))


def _has_chat_template(folder: str) -> bool:
    return (Path(folder) / "chat_template.jinja").is_file() or bool(
        _read(folder, "tokenizer_config.json").get("chat_template")
    )


def _read(folder: str, name: str) -> Any:
    """A JSON file of a model; empty where there is none."""
    path = Path(folder) / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
