"""Several selections from one `select` section: lists of values, repetitions, a list of sections.

Imports no engine.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from tagsieve.errors import UsageError
from tagsieve.selection.config import SelectConfig

Values = dict[str, Any]

_FIELDS = {
    model.model_fields["strategy"].default: model.model_fields
    for model in (get_args(part)[0] for part in get_args(get_args(SelectConfig)[0]))
}
"""The fields of each strategy."""


def expanded(section: Any) -> list[Any]:
    """The sections, one for each selection, that a recipe's `select` stands for.

    A list under a key that takes one value makes a selection for each of its values, several such
    keys one for each combination; `repeat: n` makes n of each. They are named after the section's
    `name` and these values. Of strategies in a list each takes the keys that it knows. `deplete:
    true` leaves out of each selection what those before it have. Raises UsageError when two have
    one name.
    """
    sections = section if isinstance(section, list) else [section]
    if not sections:
        raise UsageError("select: the list is empty; name at least one selection")
    found = [values for part in sections for values in _combinations(part)]
    names = Counter(_name(values) for values in found)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UsageError(f"select: two selections are named {twice[0]}; give each a name")
    return found


def _combinations(section: Any) -> list[Any]:
    if not isinstance(section, Mapping):
        return [section]
    plain: Values = {key: value for key, value in section.items() if key not in _SWEEPING}
    axes = {key: value for key, value in plain.items() if isinstance(value, list)
            and not _takes_a_list(key)}  # fmt: skip
    repeat, deplete = section.get("repeat"), section.get("deplete", False)
    if repeat is not None and (not isinstance(repeat, int) or repeat < 1):
        raise UsageError(f"select.repeat={repeat!r}: expected how often, such as 10")
    if not isinstance(deplete, bool):
        raise UsageError(f"select.deplete={deplete!r}: expected true or false")
    times = [()] if repeat is None else [(number,) for number in range(1, repeat + 1)]
    found: list[Values] = []
    for chosen in itertools.product(*axes.values()):
        for time in times:
            values = plain | dict(zip(axes, chosen, strict=True))
            if axes or time:
                values["name"] = "-".join([_name(plain), *map(_slug, (*chosen, *time))])
            if deplete:
                values["without"] = [*plain.get("without", []), *map(_name, found)]
            found.append(_known(values, axes.get("strategy", [])))
    return found


_SWEEPING = ("repeat", "deplete")


def _takes_a_list(key: str) -> bool:
    """Whether a list is one value of a key."""
    kinds = (fields[key].annotation for fields in _FIELDS.values() if key in fields)
    return any(get_origin(kind) is tuple for kind in kinds)


def _known(values: Values, strategies: Sequence[Any]) -> Values:
    """The values without those that only others of the `strategies` know."""
    fields = _FIELDS.get(values.get("strategy"), {}) if strategies else values
    others = {key for name in strategies for key in _FIELDS.get(name, {})}
    return {key: value for key, value in values.items() if key in fields or key not in others}


def _name(values: Any) -> str:
    default = "selection"
    return str(values.get("name", default)) if isinstance(values, Mapping) else default


def _slug(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", str(value)).strip("-")


def beginnings(selections: Sequence[SelectConfig]) -> dict[str, str]:
    """By name, of which other selection each is the beginning: one of the same settings but for
    its name, and a larger size."""
    found: dict[str, str] = {}
    largest: dict[str, SelectConfig] = {}
    for config in sorted(selections, key=lambda config: -(config.rows or 0)):
        if not config.prefix_of_larger:
            continue
        rest = config.model_dump_json(exclude={"name", "size"})
        if rest in largest:
            found[config.name] = largest[rest].name
        else:
            largest[rest] = config
    return found
