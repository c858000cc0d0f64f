"""Names that a package gives without importing what they need until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(places: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`, from names to the modules that they are in."""

    def found(name: str) -> Any:
        if name in places:
            return getattr(import_module(places[name]), name)
        raise AttributeError(name)

    return found
