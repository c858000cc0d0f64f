"""Figures of pools, against values worked out by hand."""

import pytest

from tagsieve.ontology.analysis import (
    pool_recall,
    pool_stats,
    pool_tag_uses,
    tag_coverage,
    tag_pairs,
)

TAGGED = "pool string, sample_id string, tags array<string>, turn_tags array<array<string>>"
ROWS = "raw_tag string, count long, status string, rule_tag string"


@pytest.fixture
def pool_tags(spark):
    """Two pools that share tags, one of which also has a turn without; and one with none at all."""
    rows = [
        ("code", "s1", ["c++", "rust", "sql"], [["c++", "sql"], ["rust"]]),
        ("code", "s2", ["sql"], [["sql"]]),
        ("chat", "s3", ["poem", "sql"], [["poem", "sql"], [], ["poem"]]),
        ("chat", "s2", ["sql"], [["sql"]]),
        ("mute", "s4", [], [[], []]),
    ]
    return spark.createDataFrame(rows, TAGGED)


def test_pool_stats_equal_hand_computed_values(pool_tags):
    found = {row["pool"]: row.asDict() for row in pool_stats(pool_tags).collect()}
    names = ("samples", "queries", "untagged_queries", "tags", "diversity", "complexity")
    values = {pool: tuple(row[name] for name in names) for pool, row in found.items()}
    # Four tags in all: c++, poem, rust, sql.
    assert values == {
        "code": (2, 3, 0, 3, pytest.approx(3 / 4), pytest.approx(4 / 3)),
        "chat": (2, 4, 1, 2, pytest.approx(2 / 4), pytest.approx(4 / 4)),
        "mute": (1, 2, 2, 0, 0.0, 0.0),
    }


def test_pool_stats_without_any_tags_have_diversity_zero(spark):
    rows = spark.createDataFrame([("mute", "s1", [], [[]])], TAGGED)
    (row,) = pool_stats(rows).collect()
    assert (row["tags"], row["diversity"], row["complexity"]) == (0, 0.0, 0.0)


def test_pool_recall_has_every_ordered_pair_and_null_without_tags(pool_tags):
    rows = pool_recall(pool_tags).collect()
    assert len(rows) == 9
    assert {(row["pool"], row["other_pool"]): row["recall"] for row in rows} == {
        ("code", "code"): 1.0,
        ("code", "chat"): pytest.approx(1 / 3),
        ("code", "mute"): 0.0,
        ("chat", "chat"): 1.0,
        ("chat", "code"): pytest.approx(1 / 2),
        ("chat", "mute"): 0.0,
        ("mute", "mute"): None,
        ("mute", "code"): None,
        ("mute", "chat"): None,
    }


def test_pool_tags_tell_how_much_more_frequent_a_tag_is_in_its_pool(pool_tags):
    found = {
        (row["pool"], row["tag"]): tuple(row)[2:] for row in pool_tag_uses(pool_tags).collect()
    }
    # Of five rows, four hold sql.
    assert found == {
        ("code", "c++"): (1, 0.5, pytest.approx(0.5 / (1 / 5))),
        ("code", "rust"): (1, 0.5, pytest.approx(0.5 / (1 / 5))),
        ("code", "sql"): (2, 1.0, pytest.approx(1 / (4 / 5))),
        ("chat", "poem"): (1, 0.5, pytest.approx(0.5 / (1 / 5))),
        ("chat", "sql"): (2, 1.0, pytest.approx(1 / (4 / 5))),
    }


def test_tag_pairs_and_coverage_count_contents(spark):
    rows = [
        ("s1", ["a", "b", "c"]), ("s2", ["a", "b"]), ("s3", ["c", "a"]), ("s4", ["d"]), ("s5", []),
        ("s6", ["a"]),
    ]  # fmt: skip
    contents = spark.createDataFrame(rows, "sample_id string, tags array<string>")
    pairs = sorted(tuple(row) for row in tag_pairs(contents, 2, 50).collect())
    assert pairs == [
        ("a", "b", 2, pytest.approx(2 * 6 / (4 * 2))),
        ("a", "c", 2, pytest.approx(2 * 6 / (4 * 2))),
    ]
    # Of the two most frequent tags of each: c is cut from s1.
    assert {tuple(row)[:3] for row in tag_pairs(contents, 2, 2).collect()} == {("a", "b", 2)}
    coverage = sorted(tuple(row) for row in tag_coverage(contents).collect())
    assert coverage == [
        (1, "a", 4, pytest.approx(4 / 6)),
        (2, "b", 2, pytest.approx(4 / 6)),
        (3, "c", 2, pytest.approx(4 / 6)),
        (4, "d", 1, pytest.approx(5 / 6)),
    ]
