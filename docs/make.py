"""Writes what the docs say of tables and settings from the code: `python docs/make.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tagsieve.lake import TABLES
from tagsieve.recipe import Recipe

DOCS = Path(__file__).resolve().parent
START, END = "<!-- written by docs/make.py -->\n", "<!-- end -->\n"


def tables() -> str:
    """Every table with its key, its partition columns and its columns."""
    parts = []
    for table in TABLES.values():
        parts.append(f"### {table.name}\n\nKey: {', '.join(f'`{name}`' for name in table.key)}.")
        if table.partition_by:
            parts[-1] += f" Partitioned by {', '.join(f'`{n}`' for n in table.partition_by)}."
        rows = [f"| `{field.name}` | {_cell(str(field.type))} |" for field in table.schema]
        parts.append("\n".join(["| column | type |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def settings() -> str:
    """Every setting of a recipe with its default and what it does, from the pydantic models."""
    schema = Recipe.model_json_schema()
    rows = [
        f"| `{key}` | {_cell(default)} | {_cell(text)} |"
        for key, default, text in _walk(schema, schema, "", set())
    ]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows]) + "\n"


def _walk(
    schema: dict[str, Any], node: dict[str, Any], prefix: str, shown: set[str]
) -> Iterator[tuple[str, str, str]]:
    for name, field in node["properties"].items():
        names = [ref.rsplit("/", 1)[-1] for ref in _references(field)]
        models = {model: schema["$defs"][model] for model in names}
        models = {model: told for model, told in models.items() if "properties" in told}
        many = "array" in (field.get("type"), *(f.get("type") for f in field.get("anyOf", ())))
        by_name = "additionalProperties" in field
        inside = ".N." if many else ".NAME." if by_name else "."
        key = f"{prefix}{name}"
        listed = [schema["$defs"][model]["properties"] for model in shown]
        if all(_is_part(told["properties"], listed) for told in models.values()):
            # Plain, or the settings are listed already.
            yield key, _default(field, name in node.get("required", ())), _what(field)
            continue
        # Of several kinds, what they have in common is said once.
        kinds: dict[tuple[str, str, str], list[str]] = {}
        for model, told in models.items():
            shown.add(model)
            fields = told["properties"]
            named = (fields.get(name, {}) for name in ("kind", "strategy", "task"))
            kind = next((field["const"] for field in named if "const" in field), "")
            for row in _walk(schema, told, inside, shown):
                kinds.setdefault(row, []).append(kind)
        for (rest, default, text), which in kinds.items():
            told = "" if len(which) == len(models) else f" ({', '.join(which)})"
            yield f"{key}{told}{rest}", default, text


def _is_part(fields: dict[str, Any], listed: list[dict[str, Any]]) -> bool:
    """Whether a model that is listed has all of these fields."""
    return any(fields.items() <= other.items() for other in listed)


def _references(field: dict[str, Any]) -> list[str]:
    items = [field["items"]] if "items" in field else []
    named = field.get("additionalProperties")
    items += [named] if isinstance(named, dict) else []
    inner = [*items, *field.get("anyOf", ()), *field.get("oneOf", ())]
    nested = [reference for part in inner for reference in _references(part)]
    return [field["$ref"], *nested] if "$ref" in field else nested


def _default(field: dict[str, Any], required: bool) -> str:
    if "default" not in field:
        return "required" if required else ""
    value = field["default"]
    if value is None:
        return ""
    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"`{shown}`" if shown and len(shown) < 60 else ("a list" if shown else "")


def _what(field: dict[str, Any]) -> str:
    choices = field.get("enum") or field.get("items", {}).get("enum") or []
    listed = f" One of: {', '.join(map(str, choices))}." if 1 < len(choices) < 12 else ""
    return f"{field.get('description', '')}{listed}".strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def filled(path: Path, text: str) -> str:
    """A file's text with `text` between its two marks."""
    before, _, rest = path.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{text}\n{END}{after}"


WRITTEN = {DOCS / "tables.md": tables, DOCS / "recipes.md": settings}


if __name__ == "__main__":
    for path, make in WRITTEN.items():
        path.write_text(filled(path, make()), encoding="utf-8")
