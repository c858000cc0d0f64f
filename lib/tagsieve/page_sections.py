"""What a step tells in sections: tables in the terminal, the same with figures as an HTML page, all
of it as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
from markupsafe import Markup

from tagsieve.engines.context import Context
from tagsieve.page import write_json, write_page


@dataclass(frozen=True)
class Section:
    """A table with a title, what it means, and a figure (SVG) for the page; `page_only`: it is not
    printed."""

    title: str
    told: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    figure: str | None = None
    page_only: bool = False


def write_report(
    context: Context,
    setting: str,
    name: str,
    folder: str,
    figures: Mapping[str, Any],
    sections: list[Section],
) -> None:
    """Print the sections, and write the page NAME.html and NAME.json into a folder. Raises
    RunError, naming the setting of the folder, where they cannot be written."""
    files, place = fsspec.core.url_to_fs(folder)
    path = f"{place.rstrip('/')}/{name}"
    write_json(setting, files, f"{path}.json", _plain(figures))
    shown = [
        {
            "title": section.title,
            "told": section.told,
            "columns": list(zip(section.columns, _numeric(section), strict=True)),
            "rows": [
                list(zip(map(_cell, row), _numeric(section), strict=True)) for row in section.rows
            ],
            "figure": None if section.figure is None else Markup(section.figure),
        }
        for section in sections
    ]
    facts = {"name": name, "sections": shown}
    template = "page_sections.html.j2"
    write_page(setting, files, f"{path}.html", template, facts, context.lake.root)
    for section in sections:
        if section.page_only:
            continue
        context.console.table(section.title, section.columns, section.rows)
        if section.told:
            context.console.line(section.told)
    context.console.line(f"page     {path}.html")
    context.console.line(f"figures  {path}.json")


def _plain(value: Any) -> Any:
    """Values as JSON has them: no NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _numeric(section: Section) -> list[bool]:
    """Of each column whether it has numbers."""
    return [
        any(isinstance(row[place], int | float) for row in section.rows)
        for place in range(len(section.columns))
    ]


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
