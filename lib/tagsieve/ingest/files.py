"""Which files an input names, and what type each one is. Needs no engine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagsieve.errors import UsageError
from tagsieve.ingest.config import Container, Input

_BY_NAME: dict[str, Container] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_HEAD = 64 * 1024


@dataclass(frozen=True)
class SourceFile:
    """One file (or Delta table), its type, and what tells that it has changed."""

    uri: str
    container: Container
    size: int
    modified: str


def find_files(source: Input) -> list[SourceFile]:
    """The files of an input, sorted by URI, each with its type.

    Raises UsageError when there are none, or the type of one cannot be told.
    """
    import fsspec

    assert source.path is not None
    path = source.path
    if "://" not in path:
        # Without `..`, as Spark names the files that it reads.
        path = os.path.abspath(Path(path).expanduser())
    try:
        files, root = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise UsageError(f"inputs: path {source.path!r} cannot be reached: {error}") from error
    if files.exists(root):  # a name may hold glob signs
        found = [root]
        if _is_hidden(root) and not files.isdir(root):
            raise UsageError(f"inputs: {root}: Spark skips names that start with _ or .; rename it")
    else:
        found = [name for name in files.glob(root) if not _is_hidden(name)]
    if not found:
        raise UsageError(
            f"inputs: path {source.path!r} (pool {source.pool}) matches no file; relative paths "
            f"start at the working directory, {Path.cwd()}"
        )
    # A glob may match a folder and also what lies in it.
    listed = {file for item in found for file in _below(files, item, source.container)}
    if not listed:
        raise UsageError(f"inputs: path {source.path!r} (pool {source.pool}) has no files in it")
    return sorted(listed, key=lambda file: file.uri)


@contextmanager
def open_file(uri: str) -> Iterator[Any]:
    """The bytes of a file, unpacked by its name; one put together of several packed parts too."""
    import fsspec
    import pyarrow as pa

    codec = next((codec for end, codec in _COMPRESSED.items() if uri.lower().endswith(end)), None)
    files, path = fsspec.core.url_to_fs(uri)
    with files.open(path, "rb") as file, pa.input_stream(file, compression=codec) as stream:
        yield stream


def _is_hidden(part: str) -> bool:
    return Path(part).name.startswith(("_", "."))


def _below(files: Any, item: str, container: Container) -> Iterable[SourceFile]:
    """The files at and below one path; a folder with a Delta log is one Delta table."""
    if not files.isdir(item):
        return [_source(files, files.info(item), container)]
    if files.isdir(f"{item}/_delta_log"):
        log = files.ls(f"{item}/_delta_log", detail=False)
        newest = max((name for name in log if name.endswith(".json")), default="")
        return [SourceFile(files.unstrip_protocol(item), "delta", 0, newest)]
    if container == "delta":
        raise UsageError(f"inputs: {item} is no Delta table: it has no _delta_log")
    return [
        _source(files, info, container)
        for name, info in files.find(item, detail=True).items()
        if not any(map(_is_hidden, Path(name).relative_to(item).parts))
    ]


def _source(files: Any, info: dict[str, Any], container: Container) -> SourceFile:
    name = info["name"]
    changed = info.get("mtime") or info.get("ETag") or info.get("LastModified") or ""
    kind = container if container != "auto" else _container(files, name)
    return SourceFile(files.unstrip_protocol(name), kind, int(info["size"] or 0), str(changed))


def _container(files: Any, name: str) -> Container:
    """The type by name, then by the first bytes (a .json file often holds JSON lines)."""
    path = Path(name.lower())
    suffix = path.suffixes[-2] if path.suffix in _COMPRESSED and path.suffixes[1:] else path.suffix
    kind = _BY_NAME.get(suffix)
    if kind in ("csv", "parquet"):
        return kind
    with files.open(name, "rb", compression="infer") as stream:
        try:
            head: bytes = stream.read(_HEAD)
        except (OSError, EOFError) as error:
            raise UsageError(f"inputs: {name} cannot be read: {error}") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    first_line, _, rest = text.partition(b"\n")
    if text.startswith(b"[") and not (rest.strip() and first_line.rstrip().endswith(b"]")):
        return "json"
    if text.startswith(b"{") and first_line.rstrip() == b"{":
        return "json"  # one pretty-printed object
    if text.startswith((b"{", b"[")) or kind is not None:
        return "jsonl"
    raise UsageError(
        f"inputs: the type of {name} cannot be told from its name or its first bytes; set "
        "container to json, jsonl, csv or parquet"
    )
