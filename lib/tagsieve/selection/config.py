"""Which rows make a training set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tagsieve.config import RecipeModel


class SelectConfig(RecipeModel):
    """One selection, stored under its name."""

    name: str = Field(
        "selection",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name in the `selections` table; running again under it replaces it.",
    )
    strategy: Literal["complexity_first"] = Field(
        "complexity_first", description="InsTag's Algorithm 1: complexity-first diverse sampling."
    )
    size: int = Field(6000, ge=1, description="Rows to select (N).")
    dedupe: Literal["pools", "none"] = Field(
        "pools", description="A conversation in several pools counts once, for the first of them."
    )
    shortfall: Literal["error", "report"] = Field(
        "report", description="What to do when the pool cannot fill the selection."
    )
    explain: bool = Field(
        False, description="Store every row that was not selected in `rejects`, with its reason."
    )
