"""A person's corrections of an ontology: a YAML file that every build of it honours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import combinations
from pathlib import Path

import yaml
from pydantic import Field

from tagsieve.config import RecipeModel, validate
from tagsieve.errors import UsageError
from tagsieve.ontology.config import NormalizeConfig
from tagsieve.ontology.rules import TagRule


class Merge(RecipeModel):
    """Tags that are one."""

    into: str = Field(min_length=1, description="The tag that stays.")
    tags: tuple[str, ...] = Field(min_length=1, description="Tags that become it.")


class Edits(RecipeModel):
    """Tags are named by any of their spellings: case, signs and endings do not matter, but in
    `never_merge` endings do."""

    merge: tuple[Merge, ...] = Field((), description="Tags that are one.")
    never_merge: tuple[tuple[str, ...], ...] = Field(
        (), description="Lists of tags of which no two become one, by stem or by meaning."
    )
    rename: dict[str, str] = Field({}, description="Tag: its new name.")


class FoundEdits:
    """Edits as a build finds them: each tag by its form, which is its stem, so that spelling means
    nothing; without the rule step the tag itself."""

    def __init__(self, edits: Edits, config: NormalizeConfig) -> None:
        self.edits = edits
        self._rule = TagRule(config.rule) if "rule" in config.steps else None
        surface = self._rule.surface if self._rule else str
        self.apart_surfaces = frozenset(surface(n) for names in edits.never_merge for n in names)

    def form(self, name: str) -> str:
        """What tells a name in the rows of an ontology."""
        if self._rule is None:
            return name
        surface = self._rule.surface(name)
        return surface if surface in self.apart_surfaces else self._rule.stem(name)

    @cached_property
    def apart(self) -> list[frozenset[str]]:
        """The lists of `never_merge`, as forms."""
        return [frozenset(map(self.form, names)) for names in self.edits.never_merge]

    @cached_property
    def names(self) -> dict[str, str]:
        """What the tag of each named form becomes, merges before renames."""
        found = {
            self.form(tag): merge.into
            for merge in self.edits.merge
            for tag in (*merge.tags, merge.into)
        }
        renamed = {self.form(old): new for old, new in self.edits.rename.items()}
        return renamed | {name: renamed.get(self.form(new), new) for name, new in found.items()}

    def told(self, there: Mapping[str, str]) -> Iterator[str]:
        """A line for each edit; `there`: the tag of each form that is one."""
        for merge in self.edits.merge:
            yield f"merge into {merge.into!r}: {self._found(merge.tags, there)}"
        for names in self.edits.never_merge:
            yield f"never merge: {self._found(names, there)}"
        for old, new in self.edits.rename.items():
            yield f"rename to {new!r}: {self._found((old,), there)}"

    def _found(self, names: tuple[str, ...], there: Mapping[str, str]) -> str:
        lacking = [name for name in names if self.form(name) not in there]
        known = f"{len(names) - len(lacking)} of {len(names)} tags"
        return f"{known}; there is no {', '.join(map(repr, lacking))}" if lacking else known


def load_edits(path: str | None) -> Edits:
    """Read `normalize.edits`; no edits without a path. Raises UsageError that says what is wrong
    with the file."""
    if path is None:
        return Edits()
    try:
        values = yaml.safe_load(Path(path).expanduser().read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"normalize.edits={path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"normalize.edits={path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"normalize.edits={path}: expected merge:, never_merge: or rename:")
    edits = validate(Edits, values, f"normalize.edits={path}")
    _check(edits, path)
    return edits


def _check(edits: Edits, path: str) -> None:
    """Refuse edits that contradict each other."""
    apart = {frozenset(pair) for names in edits.never_merge for pair in combinations(names, 2)}
    into: dict[str, str] = {}
    for merge in edits.merge:
        for tag in merge.tags:
            if into.setdefault(tag, merge.into) != merge.into:
                raise UsageError(
                    f"normalize.edits={path}: {tag!r} is to be merged into {into[tag]!r} and into "
                    f"{merge.into!r}; name it once"
                )
        for pair in combinations((*merge.tags, merge.into), 2):
            if frozenset(pair) in apart:
                raise UsageError(
                    f"normalize.edits={path}: merge and never_merge both name {pair[0]!r} and "
                    f"{pair[1]!r}"
                )
