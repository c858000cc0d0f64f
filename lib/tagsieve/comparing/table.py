"""The comparison in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tagsieve.console import Console

_MATRIX = 12
"""Selections whose overlap is shown as a matrix; of more, the pairs that share most."""

_PAIRS = 20


def show_comparison(console: Console, found: Mapping[str, Any]) -> None:
    """Print what `comparison` found: a line for each selection, then their overlap."""
    selections = found["selections"]
    console.table(
        f"selections in {found['lake']}",
        ["selection", "rows", "coverage", "tags/row", "instruction", "response", "nearest",
         "only here", "root verbs"],
        [_line(each) for each in selections],
    )  # fmt: skip
    console.line(
        "coverage: share of all tags; instruction, response: median characters; nearest: mean "
        "distance to the nearest other row"
    )
    for each in selections:
        for of in each["diversity"][:1]:
            if of["measured"] < of["rows"]:
                told = f"{of['measured']:,} of {of['rows']:,} rows"
                console.line(f"nearest of {each['name']}: mean over {told}")
    if len(selections) > 1:
        _show_overlap(console, [each["name"] for each in selections], found["overlap"])
    for sentence in found["lacking"]:
        console.line(sentence, style="yellow")


def _line(of: Mapping[str, Any]) -> list[Any]:
    tags = of["tags"] or {"coverage": None, "mean": None}
    nearest = of["diversity"][0]["mean"] if of["diversity"] else None
    verbs = ", ".join(verb["verb"] for verb in of["verbs"][:3])
    medians = [int(of["lengths"][part]["deciles"][5]) for part in ("instruction", "response")]
    only = of["only"] and of["only"]["rows"]
    return [
        of["name"], of["rows"], tags["coverage"], tags["mean"], *medians, nearest, only, verbs,
    ]  # fmt: skip


def _show_overlap(
    console: Console, names: Sequence[str], pairs: Sequence[Mapping[str, Any]]
) -> None:
    jaccard = {(pair["selection"], pair["other"]): pair["jaccard"] for pair in pairs}
    if len(names) <= _MATRIX:
        console.table(
            "overlap: Jaccard index of rows",
            ["", *map(str, range(1, len(names) + 1))],
            [[f"{number} {name}", *(f"{jaccard[name, other]:.3f}" for other in names)]
             for number, name in enumerate(names, 1)],
        )  # fmt: skip
        return
    each = [pair for place, name in enumerate(names) for pair in pairs
            if pair["selection"] == name and pair["other"] in names[place + 1 :]]  # fmt: skip
    each.sort(key=lambda pair: -pair["jaccard"])
    console.table(
        "overlap: the pairs of which the rows have the greatest Jaccard index",
        ["selection", "other", "shared rows", "Jaccard"],
        [[pair["selection"], pair["other"], pair["shared"], pair["jaccard"]]
         for pair in each[:_PAIRS]],
    )  # fmt: skip
