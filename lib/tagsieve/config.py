"""The base of all recipe models, dotted overrides, and errors that say what would be right.

Imports no engine: reading and checking a recipe must stay cheap.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, ValidationError
from pydantic_core import ErrorDetails

from tagsieve.errors import UsageError


class RecipeModel(BaseModel):
    """A part of a recipe: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]
"""Names in a list, of which a single one may stand alone."""

Model = TypeVar("Model", bound=RecipeModel)


def kind_or(default: str, key: str = "kind") -> Discriminator:
    """Which model of a union values are of, by their `key`; those that do not say: `default`."""

    def kind(value: Any) -> str:
        if isinstance(value, dict):
            return str(value.get(key, default))
        return str(getattr(value, key, default))

    return Discriminator(kind)


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Set each `dotted.key=value` in a copy of `values`; the value is read as YAML.

    A list item is named by its index (`inputs.0.pool=code`). Raises UsageError when an override
    has no `=`, or names an index that the list does not have.
    """
    result: dict[str, Any] = json.loads(json.dumps(values))
    for override in overrides:
        dotted, separator, text = override.partition("=")
        if not separator or not dotted:
            raise UsageError(f"override {override!r}: expected key=value, as in select.size=1000")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"override {override!r}: {text!r} is not a YAML value") from error
        _set(result, dotted.split("."), value, override)
    return result


def _set(node: Any, keys: list[str], value: Any, override: str) -> None:
    head, *rest = keys
    key: Any = head
    if isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            known = f"0 to {len(node) - 1}" if node else "none, the list is empty"
            raise UsageError(f"override {override!r}: {head!r} is no index of the list ({known})")
        key = int(head)
    elif not isinstance(node, dict):
        raise UsageError(f"override {override!r}: {head!r} lies below a plain value ({node!r})")
    if not rest:
        node[key] = value
        return
    if isinstance(node, dict) and node.get(key) is None:
        node[key] = {}
    _set(node[key], rest, value, override)


def validate(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Build `model` from `values`; raises one UsageError that lists every error of the recipe."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, detail) for detail in error.errors()]
        raise UsageError("\n".join([f"{where} has {len(lines)} error(s):", *lines])) from error


def _explain(model: type[RecipeModel], error: ErrorDetails) -> str:
    *above, last = error["loc"] or ("",)
    models, path = _at(model, above)
    location = ".".join(path if _of_kind(models, last) else [*path, str(last)])
    if error["type"] == "extra_forbidden":
        known = sorted({name for found in models for name in found.model_fields})
        close = difflib.get_close_matches(str(last), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"  {location}: unknown key; {hint}"
    if error["type"] == "missing":
        return f"  {location}: missing; it has no default"
    if error["type"] == "union_tag_invalid":
        told = error["ctx"]
        known = [name.strip("'") for name in told["expected_tags"].split(", ")]
        close = difflib.get_close_matches(told["tag"], known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"  {location}: no kind {told['tag']!r}; {hint}known here: {', '.join(known)}"
    message = error["msg"].removeprefix("Value error, ")
    if not location:
        return f"  {message}"
    shown = json.dumps(error["input"], ensure_ascii=False, default=str)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return f"  {location}: got {shown}; {message[0].lower()}{message[1:]}"


def _at(
    model: type[RecipeModel], location: Iterable[int | str]
) -> tuple[set[type[RecipeModel]], list[str]]:
    """The models at a location of the recipe, and the keys that lead there: a location also names
    which model of a union it is, which no key of the recipe does."""
    models, keys = {model}, []
    for part in location:
        below = {
            found
            for owner in models
            if part in owner.model_fields
            for found in _models_in(owner.model_fields[str(part)].annotation)
        }
        tagged = _of_kind(models, part)
        if below or not tagged:
            keys.append(str(part))
        models = below or tagged or models
    return models, keys


def _of_kind(models: set[type[RecipeModel]], part: int | str) -> set[type[RecipeModel]]:
    """Which models of a union a value of `kind`, `strategy` or `task` stands for; none where it is
    known already which one it is, so that the part is a field of that name."""
    fields = {
        m: [m.model_fields.get(name) for name in ("kind", "strategy", "task")] for m in models
    }
    found = {m for m in models if any(f and part in get_args(f.annotation) for f in fields[m])}
    return found if found != models else set()


def _models_in(annotation: Any) -> set[type[RecipeModel]]:
    if isinstance(annotation, type) and issubclass(annotation, RecipeModel):
        return {annotation}
    return {found for inner in get_args(annotation) for found in _models_in(inner)}
