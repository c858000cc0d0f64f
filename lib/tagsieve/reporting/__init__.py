"""What a person takes away: training files and a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tagsieve.reporting.config import ExportConfig, ReportConfig

if TYPE_CHECKING:
    from tagsieve.reporting.files import export
    from tagsieve.reporting.html import report

__all__ = ["ExportConfig", "ReportConfig", "export", "report"]


def __getattr__(name: str) -> Any:
    if name == "export":
        from tagsieve.reporting.files import export

        return export
    if name == "report":
        from tagsieve.reporting.html import report

        return report
    raise AttributeError(name)
