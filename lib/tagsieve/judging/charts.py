"""Figures of judgements as SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tagsieve.drawing import FILL, INK, SOFT, canvas, radar_canvas, svg

_LINES = "#dfe5ec"
_PARTS = {"wins": FILL, "ties": _LINES, "losses": SOFT}

_LINE = 0.3
"""Height of a bar in inches."""


def outcome_bars(labels: Sequence[str], tallies: Sequence[Mapping[str, float]]) -> str | None:
    """Shares of wins, ties and losses as stacked bars, with their counts; None where there are
    none."""
    if not labels:
        return None
    figure, axes = canvas(9.6, 0.8 + _LINE * len(labels))
    left = [0.0] * len(labels)
    for part, color in _PARTS.items():
        totals = [sum(tally[name] for name in _PARTS) for tally in tallies]
        shares = [tally[part] / total for tally, total in zip(tallies, totals, strict=True)]
        axes.barh(range(len(labels)), shares, left=left, color=color, label=part)
        for place, (share, tally) in enumerate(zip(shares, tallies, strict=True)):
            if share > 0.04:
                ink = INK if part == "ties" else "white"
                middle = left[place] + share / 2
                axes.text(middle, place, f"{tally[part]:,}", ha="center", va="center",
                          fontsize=8, color=ink)  # fmt: skip
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8, frameon=False)
    return svg(figure)


def radar(skills: Sequence[str], scores: Mapping[str, Sequence[float | None]]) -> str | None:
    """Mean scores, 1 to 5, of each model by skill, as polygons; None where there are none. A model
    without a score of some skill is not drawn."""
    drawn = {model: of for model, of in scores.items() if None not in of}
    if not drawn or not skills:
        return None
    figure, axes = radar_canvas(7.2, 5.4)
    angles = [2 * math.pi * place / len(skills) for place in range(len(skills))]
    for model, of_model in drawn.items():
        values = [value for value in of_model if value is not None]
        axes.plot([*angles, angles[0]], [*values, values[0]], linewidth=1.5, label=model)
        axes.fill(angles, values, alpha=0.08)
    axes.set_xticks(angles, skills, fontsize=8)
    axes.tick_params(axis="x", pad=16)
    axes.spines["polar"].set_color(_LINES)
    axes.grid(color=_LINES)
    axes.set_yticks(range(1, 6), [str(value) for value in range(1, 6)], fontsize=7, color=SOFT)
    axes.set_ylim(0, 5)
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8, frameon=False)
    return svg(figure)
