"""How many nodes the tree has that a judge took an instruction apart into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tagsieve.engines.llm.replies import UNPARSEABLE
from tagsieve.engines.llm.verdicts import OUT_OF_RANGE, Unread, body, only_object


def read_nodes(text: str, max_nodes: int) -> int | Unread:
    """How many distinct nodes the tree in an answer has: a JSON object with `nodes`, each of them
    with `id`, `parent` (an earlier node's id, 0 of the root) and `node` (its words). Nodes with the
    same words below the same node are one."""
    found, _ = only_object(body(text))
    nodes = None if found is None else found.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        return Unread(UNPARSEABLE, "the answer is not one JSON object with a list of nodes")
    return _distinct(nodes, max_nodes)


def _distinct(nodes: Sequence[Any], max_nodes: int) -> int | Unread:
    place: dict[Any, int] = {0: 0}
    distinct: dict[tuple[int, str], int] = {}
    for number, node in enumerate(nodes, start=1):
        told = node if isinstance(node, dict) else {}
        own, parent, words = (told.get(key) for key in ("id", "parent", "node"))
        if not (_is_whole(own) and _is_whole(parent) and isinstance(words, str) and words.strip()):
            return Unread(UNPARSEABLE, f"node {number} of the answer lacks id, parent or node")
        if own in place:
            return Unread(UNPARSEABLE, f"two nodes of the answer have the id {own}")
        if parent not in place or (parent == 0) != (number == 1):
            return Unread(UNPARSEABLE, f"the answer is no tree: node {own} is below {parent}")
        key = (place[parent], " ".join(words.casefold().split()))
        place[own] = distinct.setdefault(key, len(distinct) + 1)
    if len(distinct) > max_nodes:
        return Unread(
            OUT_OF_RANGE, f"the tree has {len(distinct)} nodes, more than max_nodes={max_nodes}"
        )
    return len(distinct)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
