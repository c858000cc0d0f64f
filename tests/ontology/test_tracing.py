"""The way of a tag through a version, and of all tags from one version to another."""

from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from handmade import put, tagged
from tagsieve.cli import main
from tagsieve.errors import UsageError
from tagsieve.ontology.config import NormalizeConfig
from tagsieve.ontology.step import identity
from tagsieve.ontology.tracing import changes, trace


def version_row(version, hour):
    config = NormalizeConfig(min_count=5, association={"min_support": 2})
    told = identity(config) | {"version": version, "tagger": "t", "run_id": "by hand"}
    return told | {"created": datetime(2026, 11, 25, hour, tzinfo=UTC)}


def raw(version, tag, count, stem=None, rule=None, semantic=None, status="kept", final=None):
    """A row of `ontology`; it ends as `final`, or its last name."""
    return {
        "version": version, "raw_tag": tag, "count": count, "status": status,
        "update": 0, "surface": rule, "stem": stem, "rule_tag": rule, "semantic_tag": semantic,
        "tag": final or semantic,
    }  # fmt: skip


@pytest.fixture
def traced(lake):
    put(lake, "ontology_versions", [version_row("v1", 1), version_row("v2", 2)])
    stem, rule = "inform retriev", "information retrieval"
    put(
        lake,
        "ontology",
        [
            raw("v1", "sql", 9, "sql", "sql", "sql"),
            raw("v2", "Information Retrieval", 30, stem, rule, rule),
            raw("v2", "information_retrieval", 12, stem, rule, rule),
            raw("v2", "info retrieval", 7, "info retriev", "info retrieval", rule),
            raw("v2", "oddity", 2, status="rare"),
            raw("v2", "loop", 50, "loop", "loop", "loop"),
        ],
    )
    rule = {"support": 40, "confidence": 1.0, "lift": 3.0}
    put(
        lake,
        "ontology_rules",
        [
            {"version": "v2", "antecedent": ["for loop", "it's"], "consequent": "loop"} | rule,
            {"version": "v2", "antecedent": ["loop"], "consequent": "control flow"} | rule,
            {"version": "v1", "antecedent": ["x"], "consequent": "loop"} | rule,
        ],
    )
    put(lake, "tags", [tagged("s1", "loop", version="v2"), tagged("s2", "loop", "x", version="v2")])
    return lake


def test_trace_tells_each_step_and_the_members_of_its_groups(traced):
    found = trace(traced, "information_retrieval")
    assert (found.version, found.raw_tag) == ("v2", "information_retrieval")
    assert found.steps == [
        ("raw", "information_retrieval", "in 12 queries"),
        ("frequency", "kept", "at least 5 are asked for"),
        (
            "rule",
            "information retrieval",
            "stem 'inform retriev'; 2 raw tags: Information Retrieval 30, information_retrieval 12",
        ),
        (
            "semantic",
            "information retrieval",
            "2 tags: information retrieval 42, info retrieval 7",
        ),
        ("tag", "information retrieval", "of 0 conversations"),
    ]


def test_trace_of_a_rare_tag_ends_where_it_was_dropped(traced):
    assert trace(traced, "oddity").steps[1:] == [("frequency", "rare", "at least 5 are asked for")]


def test_trace_finds_a_spelling_that_nobody_wrote(traced):
    assert trace(traced, "INFORMATION-RETRIEVALS").raw_tag == "Information Retrieval"
    with pytest.raises(UsageError, match="no raw tag of version v2 is 'nothing'"):
        trace(traced, "nothing")
    with pytest.raises(UsageError, match="no ontology version 'v9'; known: v1, v2"):
        trace(traced, "sql", "v9")


def test_trace_names_the_rules_of_a_tag(traced):
    rules = [step[1:] for step in trace(traced, "loop").steps if step[0] == "association"]
    assert rules == [
        ("leaves a query that has", "for loop + it's => loop (support 40, confidence 1.000)"),
        ("drops", "loop => control flow (support 40, confidence 1.000)"),
    ]
    assert trace(traced, "loop").steps[-1] == ("tag", "loop", "of 2 conversations")


def test_inspect_tag_on_the_command_line(traced):
    done = CliRunner().invoke(main, ["inspect", "tag", "loop", "--lake", traced.root])
    assert done.exit_code == 0, done.output
    assert "version v2 of tagger t" in done.output
    assert "of 2 conversations" in done.output
    for wrong in (["inspect", "tag"], ["inspect", "runs", "loop"]):
        done = CliRunner().invoke(main, [*wrong, "--lake", traced.root])
        assert done.exit_code == 2


@pytest.fixture
def two_versions(lake):
    put(lake, "ontology_versions", [version_row("v1", 1), version_row("v2", 2)])
    was = {
        "a": "a", "b": "b", "b2": "b", "c": "c", "c2": "c", "d": "d",
        "e": None, "f": "f", "same": "same",
    }  # fmt: skip
    now = {
        "a": "b", "b": "b", "b2": "b", "c": "c", "c2": "new c", "d": None,
        "e": "e", "f": "F", "same": "same",
    }  # fmt: skip
    for version, tags in (("v1", was), ("v2", now)):
        put(lake, "ontology", [raw(version, r, 3, final=tag) for r, tag in tags.items()])
    return lake


def test_changes_between_two_versions(two_versions):
    found = {(c.kind, c.old, c.new, c.uses) for c in changes(two_versions, "v1", "v2")}
    assert found == {
        ("born", (), ("e",), 3),
        ("dropped", ("d",), (), 3),
        ("merged", ("b", "a"), ("b",), 9),
        ("split", ("c",), ("c", "new c"), 6),
        ("renamed", ("f",), ("F",), 3),
    }
    assert changes(two_versions, "v1", "v1") == []


def test_diff_on_the_command_line(two_versions):
    done = CliRunner().invoke(main, ["diff", "v1", "v2", "--lake", two_versions.root])
    assert done.exit_code == 0, done.output
    assert "tags from v1 to v2" in done.output
    done = CliRunner().invoke(main, ["diff", "v1", "v3", "--lake", two_versions.root])
    assert done.exit_code == 2
    assert "known: v1, v2" in done.output
