"""What became of a tag, and of all tags from one version to another; starts no engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import QueryBuilder

from tagsieve.errors import UsageError
from tagsieve.lake import Lake
from tagsieve.ontology.config import RuleConfig
from tagsieve.ontology.rules import TagRule

MEMBERS = 10
"""Members of a group that are named; the others are counted."""


_WAYS = {
    "stem": "by its stem, in rows from then on",
    "similar": "by similarity, in rows from then on",
    "edit": "by hand, in rows from then on",
    "grown": "met often enough, in rows from then on",
}


@dataclass(frozen=True)
class Trace:
    """The way of one tag through the steps of a version: (step, what it is then, told)."""

    version: str
    tagger: str
    raw_tag: str
    steps: list[tuple[str, str, str]]


def find_made(lake: Lake, version: str | None) -> dict[str, Any]:
    """The row of `ontology_versions` of a version, or of the newest one; UsageError where there is
    none."""
    rows: list[dict[str, Any]] = lake.arrow("ontology_versions").to_pylist()
    if not rows:
        raise UsageError(f"lake {lake.root} has no ontology yet; run the step normalize first")
    if version is None:
        return max(rows, key=lambda row: row["created"])
    found = [row for row in rows if row["version"] == version]
    if not found:
        known = ", ".join(sorted((row["version"] for row in rows), key=lambda v: int(v[1:])))
        raise UsageError(f"there is no ontology version {version!r}; known: {known}")
    return found[0]


def trace(lake: Lake, name: str, version: str | None = None) -> Trace:
    """The way of the raw tag `name`, or, where nobody wrote it so, of the most used one with its
    stem. Raises UsageError when no raw tag has it."""
    made = find_made(lake, version)
    config = json.loads(made["config"])
    rule = TagRule(RuleConfig.model_validate(config["rule"]))
    row = _row(lake, made["version"], name, rule)
    steps = [("raw", row["raw_tag"], f"in {row['count']:,} queries")]
    for step in config["steps"]:
        if step == "frequency":
            least = f"at least {config['min_count']:,} are asked for"
            steps.append((step, row["status"], least))
        elif step == "rule" and row["rule_tag"] is not None:
            told = _members(lake, made["version"], "rule_tag", row["rule_tag"], "raw_tag")
            steps.append((step, row["rule_tag"], f"stem {row['stem']!r}; {told}"))
        elif step == "semantic" and row["semantic_tag"] is not None:
            below = "rule_tag" if row["rule_tag"] is not None else "raw_tag"
            told = _members(lake, made["version"], "semantic_tag", row["semantic_tag"], below)
            steps.append((step, row["semantic_tag"], told))
        elif step == "association" and row["tag"] is not None:
            steps += _rules(lake, made["version"], row["tag"])
    if row["since"]:
        steps.append((f"update {row['since']}", row["tag"], _WAYS[row["how"]]))
    if row["tag"] is not None:
        held = _holders(lake, made["version"], row["tag"])
        steps.append(("tag", row["tag"], f"of {held:,} conversations"))
    return Trace(made["version"], made["tagger"], row["raw_tag"], steps)


def _row(lake: Lake, version: str, name: str, rule: TagRule) -> dict[str, Any]:
    """The newest row of the raw tag, with the counts of all its rows, and `since`: the update that
    brought its tag (0: the build; None: it has none)."""

    def rows_with(column: str, value: str) -> list[dict[str, Any]]:
        filters = [("version", "=", version), (column, "=", value)]
        rows: list[dict[str, Any]] = lake.arrow("ontology", filters=filters).to_pylist()
        return [row | {"update": row["update"] or 0} for row in rows]

    for column, value in (("raw_tag", name), ("stem", rule.stem(name)), ("tag", name)):
        uses: Counter[str] = Counter()
        for row in rows_with(column, value):
            uses[row["raw_tag"]] += row["count"]
        if uses:
            rows = rows_with("raw_tag", min(uses, key=lambda tag: (-uses[tag], tag)))
            newest = max(rows, key=lambda row: row["update"])
            since = min((row["update"] for row in rows if row["tag"] is not None), default=None)
            return newest | {"count": sum(row["count"] for row in rows), "since": since}
    raise UsageError(f"no raw tag of version {version} is {name!r}, or has its stem")


def _members(lake: Lake, version: str, column: str, group: str, below: str) -> str:
    rows = lake.arrow(
        "ontology",
        [below, "count"],
        filters=[("version", "=", version), (column, "=", group), ("status", "=", "kept")],
    )
    uses = rows.group_by(below).aggregate([("count", "sum")]).to_pylist()
    uses.sort(key=lambda row: (-row["count_sum"], row[below]))
    named = ", ".join(f"{row[below]} {row['count_sum']:,}" for row in uses[:MEMBERS])
    more = f" and {len(uses) - MEMBERS:,} more" if len(uses) > MEMBERS else ""
    what = "raw tags" if below == "raw_tag" else "tags"
    return f"{len(uses):,} {what if len(uses) > 1 else what[:-1]}: {named}{more}"


def _rules(lake: Lake, version: str, tag: str) -> list[tuple[str, str, str]]:
    query = _query(lake, "ontology_rules")
    if query is None:
        return []
    quoted, of_version = _quoted(tag), f"version = {_quoted(version)}"
    told = []
    for where, what in (
        (f"consequent = {quoted}", "leaves a query that has"),
        (f"array_has(antecedent, {quoted})", "drops"),
    ):
        rows = pa.table(
            query.execute(
                f"SELECT * FROM ontology_rules WHERE {of_version} AND {where} "
                f"ORDER BY support DESC, antecedent, consequent LIMIT {MEMBERS}"
            ).read_all()
        ).to_pylist()
        for row in rows:
            rule = f"{' + '.join(row['antecedent'])} => {row['consequent']}"
            figures = f"support {row['support']:,}, confidence {row['confidence']:.3f}"
            told.append(("association", what, f"{rule} ({figures})"))
    return told


def _holders(lake: Lake, version: str, tag: str) -> int:
    query = _query(lake, "tags")
    if query is None:
        return 0
    rows = query.execute(
        f"SELECT count(*) AS held FROM tags WHERE ontology_version = {_quoted(version)} "
        f"AND array_has(tags, {_quoted(tag)})"
    ).read_all()
    return int(pa.table(rows)["held"][0].as_py())


def _query(lake: Lake, name: str) -> QueryBuilder | None:
    table = lake.delta(name)
    return None if table is None else QueryBuilder().register(name, table)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class Change:
    """Tags that became tags: `old` and `new` are empty where there were none; `uses`: of the raw
    tags behind it, in the version that has them."""

    kind: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    uses: int


def changes(lake: Lake, old: str, new: str) -> list[Change]:
    """What became of tags from one version to another, most used first.

    Tags are compared by the raw tags behind them. `born`: no raw tag of it had a tag; `dropped`:
    none has one now; `merged`: several tags are one; `split`: one is several; `renamed`: the same
    raw tags under another name. A tag can be in a merge and a split. The pairs of old and new tags
    are held in memory.
    """
    for version in (old, new):
        find_made(lake, version)
    query = _query(lake, "ontology")
    assert query is not None
    side = (
        "SELECT raw_tag, tag, sum(count) AS count FROM ontology WHERE tag IS NOT NULL "
        "AND version = {} GROUP BY raw_tag, tag"
    )
    pairs = pa.table(
        query.execute(
            "SELECT o.tag AS old, n.tag AS new, sum(coalesce(n.count, o.count)) AS uses "
            f"FROM ({side.format(_quoted(old))}) AS o "
            f"FULL JOIN ({side.format(_quoted(new))}) AS n ON o.raw_tag = n.raw_tag "
            "GROUP BY o.tag, n.tag"
        ).read_all()
    ).to_pylist()
    became, came = _sides(pairs, "old", "new"), _sides(pairs, "new", "old")
    found = [
        Change("dropped", (tag,), (), uses) for tag, (others, uses) in became.items() if not others
    ]
    for tag, (others, uses) in came.items():
        if not others:
            found.append(Change("born", (), (tag,), uses))
        elif len(others) > 1:
            found.append(Change("merged", tuple(others), (tag,), uses))
        elif others[0] != tag and len(became[others[0]][0]) == 1:
            found.append(Change("renamed", (others[0],), (tag,), uses))
    found += [
        Change("split", (tag,), tuple(others), uses)
        for tag, (others, uses) in became.items()
        if len(others) > 1
    ]
    return sorted(found, key=lambda change: (-change.uses, change.kind, change.old, change.new))


def _sides(
    pairs: Sequence[dict[str, Any]], side: str, other: str
) -> dict[str, tuple[list[str], int]]:
    """Tag of one side -> tags of the other side (most used first), uses."""
    found: dict[str, tuple[list[str], int]] = {}
    for pair in sorted(pairs, key=lambda pair: (-pair["uses"], pair[other] or "")):
        if pair[side] is not None:
            others, uses = found.get(pair[side], ([], 0))
            if pair[other] is not None:
                others = [*others, pair[other]]
            found[pair[side]] = (others, uses + pair["uses"])
    return found
