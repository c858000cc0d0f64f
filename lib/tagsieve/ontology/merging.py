"""Which tags of a query association rules drop (InsTag, section 3.2, "association aggregation").

Items are the places of tags in one fixed order: most frequent first, then by code points. So the
least item of several is the one that stays where either could.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Rule = tuple[tuple[int, ...], int]
"""Antecedent items and the consequent."""


def dropped(items: Iterable[int], rules: Sequence[Rule]) -> list[int]:
    """The items that `rules` drop from a query's `items`, in ascending order.

    All rules must hold in the query (antecedent and consequent among its items), and are taken at
    once, against the query as it was:

    1. Rules with one antecedent are the edges of a graph. Of a strongly connected component its
       least item stays, unless an item outside of it drops that one too; an item that is a
       component of its own is dropped by any edge to it. The source components keep an item each.
    2. Rules with longer antecedents then follow the order of items: each consequent in turn is
       dropped as long as one item of an antecedent still stands.

    At least one item of a query that has any is left.
    """
    single = [(antecedent[0], item) for antecedent, item in rules if len(antecedent) == 1]
    gone = _dropped_by_singles(single)
    standing = set(items) - gone
    longer: dict[int, list[tuple[int, ...]]] = {}
    for antecedent, item in rules:
        if len(antecedent) > 1:
            longer.setdefault(item, []).append(antecedent)
    for item in sorted(longer):
        if item in standing and any(standing.intersection(each) for each in longer[item]):
            standing.remove(item)
            gone.add(item)
    return sorted(gone)


def _dropped_by_singles(edges: Sequence[tuple[int, int]]) -> set[int]:
    after: dict[int, list[int]] = {}
    for antecedent, item in edges:
        after.setdefault(antecedent, []).append(item)
    reached = {item: _reached(item, after) for edge in edges for item in edge}

    def same(one: int, other: int) -> bool:
        return one == other or (other in reached[one] and one in reached[other])

    gone = set()
    for antecedent, item in edges:
        outside = not same(antecedent, item)
        if outside or any(other < item and same(item, other) for other in reached[item]):
            gone.add(item)
    return gone


def _reached(start: int, after: dict[int, list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = [start]
    while waiting:
        for item in after.get(waiting.pop(), ()):
            if item not in found:
                found.add(item)
                waiting.append(item)
    return found


def root(item: int, parents: Mapping[int, int]) -> int:
    """Where `item` ends when each item gives way to its parent; a circle ends in its least item."""
    way = [item]
    while (above := parents.get(way[-1])) is not None:
        if above in way:
            return min(way[way.index(above) :])
        way.append(above)
    return way[-1]
