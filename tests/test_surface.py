"""Frozen surfaces: tables and their columns, commands and their options, as in surface.json."""

import json
from pathlib import Path

import click
import pytest

from tagsieve.cli import main
from tagsieve.lake import TABLES

FILE = Path(__file__).with_name("surface.json")
ON_PURPOSE = (
    "Tables and commands are what users build on. If the change is meant, run "
    "`PYTHONPATH=lib python tests/test_surface.py`, and say so in docs and changelog."
)


def tables():
    """Table -> key, partition columns, and columns with their types."""
    return {
        name: {
            "key": list(table.key),
            "partition_by": list(table.partition_by),
            "columns": {field.name: str(field.type) for field in table.schema},
        }
        for name, table in TABLES.items()
    }


def commands():
    """Command -> its arguments and options (a choice or range with its limits)."""
    shown = {"": main, **main.commands}
    for name, group in main.commands.items():
        if isinstance(group, click.Group):
            shown |= {f"{name} {inner}": command for inner, command in group.commands.items()}
    return {
        f"tagsieve {name}".strip(): [parameter(param) for param in command.params]
        for name, command in shown.items()
    }


def parameter(param):
    if isinstance(param, click.Argument):
        return f"{param.name}{'...' if param.nargs == -1 else ''}{'' if param.required else '?'}"
    limits = repr(param.type) if isinstance(param.type, click.IntRange) else param.type.name
    return f"{', '.join(param.opts)} {'flag' if param.is_flag else limits}"


def surface():
    return {"tables": tables(), "commands": commands()}


@pytest.mark.parametrize("part", ["tables", "commands"])
def test_surface_equals_the_checked_in_list(part):
    listed = json.loads(FILE.read_text(encoding="utf-8"))[part]
    found = surface()[part]
    for name in listed.keys() | found.keys():
        assert found.get(name) == listed.get(name), f"{part}: {name} has changed. {ON_PURPOSE}"


if __name__ == "__main__":
    FILE.write_text(json.dumps(surface(), indent=2) + "\n", encoding="utf-8")
