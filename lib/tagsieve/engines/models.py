"""Model folders: where a model lies, and the hash of what it is."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from tagsieve.errors import UsageError

TOKENIZER_FILES = (
    "added_tokens.json", "merges.txt", "special_tokens_map.json", "spiece.model", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
)  # fmt: skip
_KINDS = {".json", ".safetensors", ".bin", ".txt", ".model", ".jinja"}
_ABOUT_IT = {"history.json", "trainer_state.json", "training_args.bin"}
"""Files beside a model's own that tell of its training."""
_LARGE = 64 * 2**20
_CACHE = Path.home() / ".cache" / "tagsieve" / "digests"


@cache
def model_folder(
    model: str, revision: str | None = None, only: tuple[str, ...] | None = None
) -> str:
    """The folder of a model: `model` itself, or the hub's snapshot, fetched if need be (of its
    files `only` these).

    Raises UsageError when it is neither.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return str(
            snapshot_download(
                model, revision=revision, allow_patterns=None if only is None else list(only)
            )
        )
    except (HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"model {model!r}: no such folder, and not to be had from the hub: {reason}"
        ) from error


def everywhere(model: str, revision: str | None) -> tuple[str, str | None]:
    """A model as any machine finds it by `model_folder`: the absolute path of a folder, or its name
    on the hub with the commit that this machine has of it. Raises UsageError as that does."""
    folder = Path(model_folder(model, revision))
    if Path(model).expanduser().is_dir():
        return str(folder.absolute()), None
    return model, folder.name


@cache
def model_digest(folder: str) -> str:
    """16 hex digits over a model folder's weights, tokenizer and config; the path is not in it.

    Of folders below it those alone count that a sentence encoder names as its parts: checkpoints
    and logs of a training may come and go. Large files are hashed once per machine: their hashes
    are kept by path, size and time.
    """
    digest = hashlib.sha256()
    for file in sorted(file for part in _parts(Path(folder)) for file in part.iterdir()):
        if file.is_file() and file.suffix in _KINDS and file.name not in _ABOUT_IT:
            digest.update(file.name.encode() + b"\0")
            digest.update(_file_digest(file))
    return digest.hexdigest()[:16]


def _parts(folder: Path) -> set[Path]:
    """The folder, and those below it that a sentence encoder's modules lie in."""
    modules = folder / "modules.json"
    listed = json.loads(modules.read_text("utf-8")) if modules.is_file() else []
    parts = {folder, *(folder / module["path"] for module in listed)}
    return {part for part in parts if part.is_dir()}


@cache
def tokenizer_digest(folder: str) -> str:
    """16 hex digits over the files of a model folder that make its tokenizer."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        file = Path(folder) / name
        if file.is_file():
            digest.update(name.encode() + b"\0")
            digest.update(_hash(file))
    return digest.hexdigest()[:16]


def forget_models() -> None:
    """Look anew at all model folders: one was written."""
    for known in (model_folder, model_digest, tokenizer_digest):
        known.cache_clear()


def _file_digest(file: Path) -> bytes:
    state = file.stat()
    if state.st_size < _LARGE:
        return _hash(file)
    key = f"{file.resolve()} {state.st_size} {state.st_mtime_ns}"
    kept = _CACHE / hashlib.sha256(key.encode()).hexdigest()
    if kept.is_file() and len(found := kept.read_bytes()) == hashlib.sha256().digest_size:
        return found
    found = _hash(file)
    _CACHE.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(found)
    return found


def _hash(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
