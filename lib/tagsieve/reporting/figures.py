"""The report's figures as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tagsieve.drawing import canvas, svg


def diversity_complexity(stats: Sequence[Mapping[str, Any]]) -> str:
    """Pools by diversity (x) and complexity (y), sized by their samples (InsTag, figure 2)."""
    figure, axes = canvas(5.6, 4.0)
    largest = max((row["samples"] for row in stats), default=1)
    for row in stats:
        size = 30 + 570 * row["samples"] / largest
        axes.scatter(row["diversity"], row["complexity"], s=size, alpha=0.55, edgecolors="none")
        axes.annotate(row["pool"], (row["diversity"], row["complexity"]), fontsize=8, ha="center")
    axes.margins(0.15)
    axes.set_xlabel("diversity: share of all tags")
    axes.set_ylabel("complexity: mean tags per query")
    axes.grid(alpha=0.25)
    return svg(figure)


def recall_matrix(recall: Sequence[Mapping[str, Any]]) -> str:
    """Share of a row pool's tags that a column pool has too, as a heat map (InsTag, figure 3)."""
    pools = sorted({row["pool"] for row in recall})
    index = {pool: position for position, pool in enumerate(pools)}
    values = [[float("nan")] * len(pools) for _ in pools]
    for row in recall:
        if row["recall"] is not None:
            values[index[row["pool"]]][index[row["other_pool"]]] = row["recall"]
    side = 1.6 + 0.55 * len(pools)
    figure, axes = canvas(side + 1.0, side)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(pools)), pools, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(pools)), pools, fontsize=8)
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            if value == value:  # not NaN: a pool without tags has no recall
                color = "white" if value > 0.6 else "black"
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    return svg(figure)
