"""Prompt templates: files that ship in `tagsieve/prompts` (`conf/prompts`), or a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tagsieve.errors import UsageError

Messages = list[dict[str, str]]

_PACKAGED = resources.files("tagsieve") / "prompts"


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt with places for fields, each written `{field}`.

    Either `text`, which goes to the model as it is (a completion), or `messages`, which go through
    the model's chat template. `name` is for people; `content` decides what a model is asked.
    `operators`: texts by name, one of which is to stand at `{operator}`; most prompts have none.
    """

    name: str
    text: str | None
    messages: tuple[tuple[str, str], ...] = ()
    operators: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> Any:
        """What goes into a fingerprint."""
        asked = self.text if self.text is not None else [list(pair) for pair in self.messages]
        return [asked, dict(self.operators)] if self.operators else asked

    def render(self, fields: Mapping[str, str]) -> str | Messages:
        """The prompt with its fields filled in; braces in the values mean nothing."""
        if self.text is not None:
            return _fill(self.text, fields)
        return [{"role": role, "content": _fill(text, fields)} for role, text in self.messages]

    def given(self, fields: Mapping[str, str]) -> PromptTemplate:
        """The template with some of its fields filled in once for all prompts."""
        text = None if self.text is None else _fill(self.text, fields)
        messages = tuple((role, _fill(content, fields)) for role, content in self.messages)
        return replace(self, text=text, messages=messages)


def _fill(text: str, fields: Mapping[str, str]) -> str:
    """`text` with each `{field}` replaced, in one pass: a value that holds `{field}` stays so."""
    parts, rest = [], text
    while rest:
        found = [(rest.find(f"{{{name}}}"), name) for name in fields]
        places = [(place, name) for place, name in found if place >= 0]
        if not places:
            break
        place, name = min(places)
        parts += [rest[:place], fields[name]]
        rest = rest[place + len(name) + 2 :]
    return "".join([*parts, rest])


def packaged_prompts() -> list[str]:
    """Names of the templates that ship."""
    return sorted(Path(f.name).stem for f in _PACKAGED.iterdir() if f.name.endswith(".yaml"))


def load_prompt(name: str, fields: tuple[str, ...]) -> PromptTemplate:
    """A template by its packaged name or its path.

    Raises UsageError when it is not there, is not YAML with `text` or `messages`, or lacks one of
    `fields`.
    """
    packaged = packaged_prompts()
    file = _PACKAGED / f"{name}.yaml" if name in packaged else Path(name)
    try:
        values = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"prompt {name!r}: neither a packaged prompt ({', '.join(packaged)}) nor a file that "
            f"can be read: {error}"
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(f"prompt {name!r}: not YAML: {error}") from error
    template = _template(Path(name).stem, values)
    if template is None:
        raise UsageError(
            f"prompt {name!r}: expected text: ... (a completion), or messages: a list of role and "
            "content (through the model's chat template)"
        )
    whole = template.text or "".join(text for _, text in template.messages)
    lacking = [field for field in fields if f"{{{field}}}" not in whole]
    if lacking:
        raise UsageError(f"prompt {name!r}: lacks {', '.join(f'{{{f}}}' for f in lacking)}")
    return template


def _template(name: str, values: Any) -> PromptTemplate | None:
    if not isinstance(values, dict):
        return None
    operators = values.pop("operators", {})
    named = isinstance(operators, dict) and all(
        isinstance(part, str) for pair in operators.items() for part in pair
    )
    if not named or set(values) not in ({"text"}, {"messages"}):
        return None
    if "text" in values:
        text = values["text"]
        return PromptTemplate(name, text, (), operators) if isinstance(text, str) else None
    messages = values["messages"]
    try:
        pairs = tuple((message["role"], message["content"]) for message in messages)
    except (TypeError, KeyError):
        return None
    good = pairs and all(isinstance(part, str) for pair in pairs for part in pair)
    return PromptTemplate(name, None, pairs, operators) if good else None
