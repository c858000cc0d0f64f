"""Scores of conversations by expressions over the scores of their turns."""

import math

import pytest

from tagsieve.selection.scores import combined

SCORERS = {"c": "complexity-1", "q": "quality-2", "n": "turns"}
ROWS = [
    # One turn, two turns, a turn without a score, no finite score, and only a score as a whole.
    ("a", 0, "complexity-1", 2.0), ("a", 0, "quality-2", 3.0), ("a", -1, "turns", 1.0),
    ("b", 0, "complexity-1", 1.0), ("b", 0, "quality-2", 4.0),
    ("b", 1, "complexity-1", 5.0), ("b", 1, "quality-2", 2.0), ("b", -1, "turns", 2.0),
    ("c", 0, "complexity-1", 6.0), ("c", 0, "quality-2", 6.0), ("c", 1, "quality-2", 6.0),
    ("c", -1, "turns", 2.0),
    ("d", 0, "complexity-1", float("inf")), ("d", 0, "quality-2", 0.0), ("d", -1, "turns", 1.0),
    ("e", -1, "turns", 3.0),
    ("a", 0, "another", 9.0),
]  # fmt: skip
TURNS = [("a", 1), ("b", 2), ("c", 2), ("d", 1), ("e", 3)]


@pytest.fixture
def scored(spark, tmp_path):
    spark.sparkContext.setCheckpointDir(str(tmp_path))
    scores = spark.createDataFrame(ROWS, "sample_id string, turn int, scorer string, value double")
    turns = spark.createDataFrame(TURNS, "sample_id string, turns int")

    def run(expression, over_turns="sum", partitions=3):
        rows = combined(scores.repartition(partitions), turns, SCORERS, expression, over_turns)
        return {row["sample_id"]: row["score"] for row in rows.collect()}

    return run


@pytest.mark.parametrize(
    ("expression", "over_turns", "expected"),
    [
        ("c * q", "sum", {"a": 6.0, "b": 14.0}),
        ("c * q", "mean", {"a": 6.0, "b": 7.0}),
        ("c * q", "max", {"a": 6.0, "b": 10.0}),
        ("c * q", "first", {"a": 6.0, "b": 4.0}),
        ("c * q", "product_of_sums", {"a": 6.0, "b": 36.0}),
        ("n", "sum", {"a": 1.0, "b": 2.0, "c": 2.0, "d": 1.0, "e": 3.0}),
        ("q + 10 * n", "sum", {"a": 13.0, "b": 46.0, "c": 52.0, "d": 10.0}),
        ("-c ** 2 / (q - 4)", "sum", {"a": 4.0}),
        ("min(c, q, 2) + max(c, 3)", "first", {"a": 5.0, "b": 4.0}),
        ("sqrt(abs(2 - q * 2)) + exp(log(q))", "first",
         {"a": 5.0, "b": 4 + 6**0.5, "c": 6 + 10**0.5}),
    ],
)  # fmt: skip
def test_combined_by_expression(scored, expression, over_turns, expected):
    found = scored(expression, over_turns)
    assert found.keys() == expected.keys()
    for sample, value in expected.items():
        assert math.isclose(found[sample], value)


def test_ranks_and_z_scores_are_over_all_rows_whatever_the_partitions(scored):
    # The values of q are 3, 4, 2, 6, 6 and 0, of which c's second turn alone lacks its c.
    assert scored("rank(q)", "max") == {"a": 2 / 6, "b": 3 / 6, "c": 4 / 6, "d": 0.0}
    for partitions in (1, 5):
        found = scored("zscore(q)", "first", partitions)
        mean = 21 / 6
        deviation = (sum((q - mean) ** 2 for q in (3, 4, 2, 6, 6, 0)) / 6) ** 0.5
        assert found == {
            sample: pytest.approx((q - mean) / deviation, rel=1e-9)
            for sample, q in {"a": 3, "b": 4, "c": 6, "d": 0}.items()
        }
        assert found == scored("zscore(q)", "first", 4)


def test_equal_values_have_a_z_score_of_zero(scored):
    assert scored("zscore(0 * n)") == dict.fromkeys("abcde", 0.0)
