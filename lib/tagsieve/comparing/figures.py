"""The comparison's figures as SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from tagsieve.drawing import FILL, INK, SOFT, canvas, svg

_LINE = 0.27
"""Height of a selection in inches."""

_TITLE = 60
"""Characters of a line of a title. Matplotlib's own wrapping takes dollar signs for formulas."""

_POOLS = 12
"""Pools with a colour of their own; others are drawn together."""

Verbs = Sequence[Mapping[str, Any]]
"""Most frequent first: `verb`, `count`, `objects` (each `object`, `count`)."""


def overlap_matrix(names: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> str:
    """Jaccard index of the rows of each two selections, as a heat map."""
    place = {name: position for position, name in enumerate(names)}
    values = [[0.0] * len(names) for _ in names]
    for pair in pairs:
        values[place[pair["selection"]]][place[pair["other"]]] = pair["jaccard"]
    side = 1.2 + (0.42 if len(names) > 12 else 0.55) * len(names)
    figure, axes = canvas(side + 1.0, side)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            color = "white" if value > 0.6 else "black"
            told = f"{value:.2f}".replace("0.", ".")
            axes.text(x, y, told, ha="center", va="center", fontsize=7, color=color)
    return svg(figure)


def pool_shares(names: Sequence[str], pools: Mapping[str, Mapping[str, int]]) -> str:
    """Shares of the pools in each selection, as stacked bars; the largest pool first."""
    totals: dict[str, int] = {}
    for of_pool in pools.values():
        for pool, count in of_pool.items():
            totals[pool] = totals.get(pool, 0) + count
    order = sorted(totals, key=lambda pool: (-totals[pool], pool))
    shown = {pool: [pool] for pool in order[:_POOLS]}
    if order[_POOLS:]:
        shown[f"{len(order) - _POOLS} others"] = order[_POOLS:]
    figure, axes = canvas(9.6, 0.9 + _LINE * (len(names) + math.ceil(len(shown) / 5)))
    left = [0.0] * len(names)
    for number, (label, members) in enumerate(shown.items()):
        shares = []
        for name in names:
            of_pool = pools[name]
            held = sum(of_pool.get(pool, 0) for pool in members)
            shares.append(held / sum(of_pool.values()))
        axes.barh(names, shares, left=left, height=0.72, color=_color(number), label=label)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    _by_selection(axes, names)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of rows", fontsize=8, color=SOFT)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, fontsize=8, frameon=False
    )  # fmt: skip
    return svg(figure)


def bars(names: Sequence[str], panels: Mapping[str, Sequence[float | None]]) -> str:
    """One figure of each selection a panel, as bars with their values; None: it has none."""
    figure, panel_axes = canvas(
        max(4.6, 1.6 + 2.7 * len(panels)), 0.7 + _LINE * len(names), len(panels)
    )
    listed = [panel_axes] if len(panels) == 1 else list(panel_axes)
    for axes, (title, values) in zip(listed, panels.items(), strict=True):
        axes.barh(names, [value or 0.0 for value in values], height=0.72, color=FILL)
        for place, value in enumerate(values):
            told = " none" if value is None else f" {value:.3g}"
            axes.text(value or 0.0, place, told, va="center", fontsize=7, color=SOFT)
        _by_selection(axes, names)
        axes.margins(x=0.2)
        axes.set_title(fill(title, _TITLE), fontsize=8, color=INK)
    return svg(figure)


def deciles(names: Sequence[str], title: str, spreads: Mapping[str, Sequence[float]]) -> str:
    """How a value is spread in each selection: a thin line from the first decile to the ninth, a
    thick one from the third to the seventh, a dot at the median.

    On a logarithmic axis where no first decile is under 1 and the ninths are ten times as great.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = canvas(4.6, 0.75 + _LINE * len(names))
    for place, name in enumerate(names):
        if name in spreads:
            tenths = spreads[name]
            axes.plot(tenths[1:10:8], [place, place], color=FILL, linewidth=1.2)
            axes.plot(
                tenths[3:8:4], [place, place], color=FILL, linewidth=5, alpha=0.55,
                solid_capstyle="butt",
            )  # fmt: skip
            axes.plot(tenths[5], place, "o", color=INK, markersize=3.5)
    _by_selection(axes, names)
    least = min(tenths[1] for tenths in spreads.values())
    if least >= 1 and max(tenths[9] for tenths in spreads.values()) >= 10 * least:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", alpha=0.25)
    axes.set_title(fill(title, _TITLE), fontsize=8, color=INK)
    return svg(figure)


def sunburst(verbs: Verbs, total: int, colors: Mapping[str, int]) -> str:
    """The most frequent root verbs (inner ring) by their counts, and by theirs the most frequent
    direct objects of each, which share its angle (outer ring; Longest, figure 2).

    `total`: instructions. Verbs that have the same number in `colors` are drawn alike.
    """
    figure, axes = canvas(5.2, 5.2)
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-1.02, 1.02)
    axes.set_ylim(-1.02, 1.02)
    drawn = sum(verb["count"] for verb in verbs)
    start = 90.0
    for verb in verbs:
        color = _color(colors[verb["verb"]])
        width = 360 * verb["count"] / drawn
        _wedge(axes, 0.22, 0.6, start, width, color, 0.9, verb["verb"])
        of_verb, of_objects = start, sum(each["count"] for each in verb["objects"])
        for each in verb["objects"]:
            part = width * each["count"] / of_objects
            _wedge(axes, 0.6, 1.0, of_verb, part, color, 0.45, each["object"])
            of_verb -= part
        start -= width
    share = f"{100 * drawn / total:.0f} %" if total else ""
    axes.text(0, 0, share, ha="center", va="center", fontsize=9, color=SOFT)
    return svg(figure)


def _wedge(
    axes: Any, inner: float, outer: float, start: float, width: float, color: Any, alpha: float,
    label: str,
) -> None:  # fmt: skip
    """A piece of a ring, clockwise from an angle, with its label along the radius if it fits."""
    from matplotlib.patches import Wedge

    piece = Wedge(
        (0, 0), outer, start - width, start, width=outer - inner, facecolor=color, alpha=alpha,
        edgecolor="white", linewidth=0.6,
    )  # fmt: skip
    axes.add_patch(piece)
    middle = (inner + outer) / 2
    if width * middle < 2.1:
        return
    angle = start - width / 2
    # Never upside down.
    turned = angle if -90 <= (angle + 180) % 360 - 180 <= 90 else angle + 180
    axes.text(
        middle * math.cos(math.radians(angle)), middle * math.sin(math.radians(angle)),
        label if len(label) <= 14 else f"{label[:13]}…", rotation=turned, rotation_mode="anchor",
        ha="center", va="center", fontsize=7.5, color=INK,
    )  # fmt: skip


def _by_selection(axes: Any, names: Sequence[str]) -> None:
    """A line for each selection, the first at the top."""
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(labelsize=8, length=2, color=SOFT)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _color(number: int) -> Any:
    from matplotlib import colormaps

    # Of tab20, the ten full colours before the ten light ones.
    return colormaps["tab20"]((2 * number + number // 10) % 20)
