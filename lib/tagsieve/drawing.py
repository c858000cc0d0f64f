"""Figures as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

FILL, INK, SOFT = "#3b7dd8", "#1c2530", "#5d6b7a"
"""Colours of the pages."""


def canvas(width: float, height: float, panels: int = 1) -> tuple[Any, Any]:
    """A figure (sizes in inches) and its axes, or of several panels side by side an array of them.

    The panels have one y axis.
    """
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, panels, sharey=panels > 1)


def radar_canvas(width: float, height: float) -> tuple[Any, Any]:
    """A figure (sizes in inches) and its polar axes, from the top and clockwise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Any = figure.add_subplot(projection="polar")
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    return figure, axes


def svg(figure: Any) -> str:
    """A figure as an `<svg>` element; text from the data in it is escaped, and is no formula."""
    from matplotlib.text import Text

    for label in figure.findobj(Text):
        label.set_parse_math(False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def loss_curves(history: Sequence[Mapping[str, Any]]) -> str | None:
    """The losses of a training by step, on its rows and on those held out; None where there is
    none. `history`: `step`, `name` and `value` of each figure."""
    lines = {"loss": ("rows trained on", FILL), "eval_loss": ("rows held out", INK)}
    drawn = {name: [(row["step"], row["value"]) for row in history if row["name"] == name]
             for name in lines}  # fmt: skip
    if not any(drawn.values()):
        return None
    figure, axes = canvas(7.2, 3.0)
    for name, points in drawn.items():
        if points:
            label, color = lines[name]
            axes.plot(*zip(*points, strict=True), color=color, linewidth=1.5, label=label)
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel("loss", fontsize=8)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return svg(figure)
