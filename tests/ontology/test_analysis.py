"""Figures of pools, against values worked out by hand."""

import pytest

from tagsieve.ontology.analysis import pool_recall, pool_stats

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
