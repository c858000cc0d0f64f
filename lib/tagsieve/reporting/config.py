"""Training files and the report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tagsieve.config import RecipeModel

ExportFormat = Literal["alpaca", "sharegpt", "messages"]


class ExportConfig(RecipeModel):
    """The selection, or the mixtures, as files that trainers read."""

    path: str = Field(
        "out",
        description="Folder; what an earlier export left in it is replaced. The mixtures of a "
        "study have folders in it, called after them.",
    )
    formats: tuple[ExportFormat, ...] = Field(
        ("sharegpt",), min_length=1, description="Forms of a record; each in a folder of its own."
    )
    files: tuple[Literal["jsonl", "parquet"], ...] = Field(
        ("jsonl",), min_length=1, description="File types of each form."
    )


class ReportConfig(RecipeModel):
    """One self-contained HTML file."""

    path: str | None = Field(
        None, description="The file; default: report.html in the export folder."
    )
    top_tags: int = Field(40, ge=1, description="Most frequent tags to show.")
    examples: int = Field(12, ge=0, description="Selected and refused rows to show of each kind.")
