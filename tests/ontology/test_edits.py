"""Corrections of an ontology by hand."""

import pytest

from tagsieve.errors import UsageError
from tagsieve.ontology.edits import Edits, load_edits

SAMPLES = "sample_id string, query_ids array<string>"
RAW_TAGS = "query_id string, tags array<struct<tag: string, explanation: string>>"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "edits.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "expected merge:, never_merge: or rename:"),
        ("merge: [", "not YAML"),
        ("merged: []", "unknown key; did you mean 'merge'"),
        ("merge: [{into: a, tags: []}]", "merge.0.tags"),
        (
            "merge: [{into: a, tags: [x]}, {into: b, tags: [x]}]",
            "'x' is to be merged into 'a' and into 'b'",
        ),
        ("{merge: [{into: a, tags: [b]}], never_merge: [[b, c, a]]}", "both name 'b' and 'a'"),
    ],
)
def test_edits_that_are_wrong_are_refused(written, text, told):
    with pytest.raises(UsageError, match=r"normalize\.edits=") as raised:
        load_edits(written(text))
    assert told in str(raised.value)


def test_edits_that_are_not_there_are_named():
    with pytest.raises(UsageError, match=r"normalize\.edits=none\.yaml: cannot be read"):
        load_edits("none.yaml")
    assert load_edits(None) == Edits()


def test_edits_are_honoured_and_reported(written, build_of, capsys):
    edits = load_edits(
        written(
            "merge: [{into: databases, tags: [sql, SQL_queries, no such tag]}]\n"
            "never_merge: [[universe, university], [data visualisation, data visualization]]\n"
            "rename: {rustlang: rust}\n"
        )
    )
    tags = {
        "sql": 5, "sql query": 4, "SQL Queries": 3, "database": 2, "universe": 9, "University": 8,
        "data visualisation": 7, "data visualization": 6, "Rustlang": 3,
    }  # fmt: skip
    plain = build_of(tags)
    assert plain["University"] == plain["universe"] == "universe"
    assert plain["data visualisation"] == plain["data visualization"] == "data visualisation"
    made = build_of(tags, edits)
    assert made == {
        "sql": "databases",
        "sql query": "databases",
        "SQL Queries": "databases",
        "database": "databases",
        "universe": "universe",
        "University": "university",
        "data visualisation": "data visualisation",
        "data visualization": "data visualization",
        "Rustlang": "rust",
    }
    lines = capsys.readouterr().out
    assert "edits: merge into 'databases': 2 of 3 tags; there is no 'no such tag'" in lines
    assert "edits: rename to 'rust': 1 of 1 tags" in lines


@pytest.fixture
def build_of(spark, lake, engines):
    """Raw tag -> its tag, of given counts, under given edits."""
    from tagsieve.console import Console
    from tagsieve.engines.context import Context
    from tagsieve.ledger import StepRun
    from tagsieve.ontology.building import Build
    from tagsieve.ontology.config import NormalizeConfig

    def make(counts, edits=None):
        queries = [(f"{tag} {n}", tag) for tag, uses in counts.items() for n in range(uses)]
        samples = spark.createDataFrame([(query, [query]) for query, _ in queries], SAMPLES)
        raw_tags = spark.createDataFrame([(q, [(tag, "")]) for q, tag in queries], RAW_TAGS)
        context = Context(lake, engines, StepRun(lake, "edits", "normalize"), Console())
        config = NormalizeConfig(steps=["frequency", "rule", "semantic"], min_count=1)
        build = Build.begin(context, config, edits or Edits(), raw_tags, samples)
        build.finish()
        return {row["raw_tag"]: row["tag"] for row in build.rows.collect()}

    return make
