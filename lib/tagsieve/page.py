"""Self-contained HTML files from templates; all text from the data is escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

import tagsieve
from tagsieve.errors import RunError

RUN_NOTE, MODEL_NOTE = "tagsieve-run", "tagsieve-model"
"""What cards and pages note of themselves near their beginning, as `tagsieve-run: ID`."""


def noted_in(files: Any, path: str, note: str) -> str | None:
    """The id that a card or page notes; None where there is none, or no such file."""
    if not files.exists(path):
        return None
    with files.open(path, "r", encoding="utf-8") as stream:
        found = re.search(rf"{note}: ([\w.-]+)", stream.read(4096))
    return found.group(1) if found else None


def write_page(
    setting: str, files: Any, path: str, template: str, facts: Mapping[str, Any], lake: str
) -> None:
    """Fill a template of this package with facts and write it to a path of an fsspec file system.

    The template also has `lake`, `style`, `tagsieve_version` and `made`. Raises RunError, naming
    the setting, where the file cannot be written.
    """
    package = resources.files("tagsieve")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = lambda number: f"{number:,}"
    html = environment.from_string((package / template).read_text("utf-8")).render(
        facts,
        lake=lake,
        style=Markup((package / "page.css").read_text("utf-8")),
        tagsieve_version=tagsieve.__version__,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_text(setting, files, path, html)


def write_text(setting: str, files: Any, path: str, text: str) -> None:
    """Write a file, in a folder that is made where it is not there. Raises RunError, naming the
    setting, where it cannot be written."""
    make_folder(setting, files, path)
    try:
        with files.open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise _not_written(setting, path, error) from error


def write_json(setting: str, files: Any, path: str, value: Any) -> None:
    """Write plain values as a JSON file for people, as `write_text`."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    write_text(setting, files, path, f"{text}\n")


def make_folder(setting: str, files: Any, path: str) -> None:
    """Make the folder of a file where it is not there. Raises RunError, naming the setting, where
    it cannot be made."""
    try:
        files.makedirs(files._parent(path), exist_ok=True)
    except OSError as error:
        raise _not_written(setting, path, error) from error


def _not_written(setting: str, path: str, error: OSError) -> RunError:
    return RunError(f"{setting}={path}: cannot be written: {error}")
