"""The comparison as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tagsieve.comparing.figures import bars, deciles, overlap_matrix, pool_shares, sunburst
from tagsieve.page import write_page

_CHARACTERS = "{} in characters"


def write_comparison(files: Any, path: str, lake: str, found: Mapping[str, Any]) -> None:
    """Write what `comparison` found to a path of an fsspec file system. Raises RunError where it
    cannot be written."""
    selections = found["selections"]
    names = [each["name"] for each in selections]
    pairs = {(pair["selection"], pair["other"]): pair for pair in found["overlap"]}
    facts = {
        "selections": selections,
        "names": names,
        "pairs": pairs,
        "lacking": found["lacking"],
        "encoders": _encoders(selections),
        "overlap": Markup(overlap_matrix(names, found["overlap"])) if len(names) > 1 else None,
        "pools": Markup(pool_shares(names, {each["name"]: each["pools"] for each in selections})),
        "tags": _tag_bars(selections),
        "diversity": _diversity_bars(selections),
        "lengths": _spreads(selections, "lengths", _CHARACTERS),
        "scores": _spreads(selections, "scores", "{}"),
        "sunbursts": _sunbursts(selections),
    }
    write_page("--out", files, path, "comparing/compare.html.j2", facts, lake)


def _encoders(selections: Sequence[Mapping[str, Any]]) -> list[str]:
    found = (each["encoder"] for selection in selections for each in selection["diversity"])
    return list(dict.fromkeys(found))


def _tag_bars(selections: Sequence[Mapping[str, Any]]) -> Markup | None:
    there = [each for each in selections if each["tags"]]
    if not there:
        return None
    panels = {
        "share of all tags": [each["tags"]["coverage"] for each in there],
        "mean tags of a row": [each["tags"]["mean"] for each in there],
    }
    return Markup(bars([each["name"] for each in there], panels))


def _diversity_bars(selections: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """A figure for each encoder."""
    found = []
    for encoder in _encoders(selections):
        means = [
            next((of["mean"] for of in each["diversity"] if of["encoder"] == encoder), None)
            for each in selections
        ]
        found.append(Markup(bars([each["name"] for each in selections], {encoder: means})))
    return found


def _spreads(selections: Sequence[Mapping[str, Any]], kind: str, title: str) -> list[Markup]:
    """A figure for each name of a length or score."""
    names = [each["name"] for each in selections]
    found = []
    for measured in sorted({name for each in selections for name in each[kind]}):
        of_each = {
            each["name"]: each[kind][measured]["deciles"]
            for each in selections
            if measured in each[kind]
        }
        found.append(Markup(deciles(names, title.format(measured), of_each)))
    return found


def _sunbursts(selections: Sequence[Mapping[str, Any]]) -> dict[str, Markup]:
    """A figure for each selection with verbs; a verb has one colour in all of them."""
    uses: dict[str, float] = {}
    for each in selections:
        for verb in each["verbs"]:
            share = verb["count"] / each["instructions"]
            uses[verb["verb"]] = uses.get(verb["verb"], 0.0) + share
    order = sorted(uses, key=lambda verb: (-uses[verb], verb))
    colors = {verb: number for number, verb in enumerate(order)}
    return {
        each["name"]: Markup(sunburst(each["verbs"], each["instructions"], colors))
        for each in selections
        if each["verbs"]
    }
