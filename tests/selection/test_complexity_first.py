"""Algorithm 1 in its parallel form takes the rows that the sequential loop takes."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from parity.complexity_first import complexity_first as sequential
from tagsieve.selection import complexity_first
from tagsieve.selection.complexity_first import by_passes, by_scan

ROWS = "pool string, sample_id string, tags array<string>"

TAGS = st.lists(st.integers(0, 30).map("t{:02}".format), max_size=5, unique=True)
POOLS = st.lists(st.sampled_from(["a", "b", "B"]), min_size=1, max_size=2, unique=True)


@st.composite
def tagged_rows(draw):
    """Up to 60 rows: conversations of one or two pools, some without tags, many ties."""
    conversations = draw(st.lists(st.tuples(TAGS, POOLS), max_size=45))
    rows = [
        (pool, f"s{number}", tags)
        for number, (tags, pools) in enumerate(conversations)
        for pool in pools
    ]
    return draw(st.permutations(rows[:60]))


@pytest.fixture(params=["passes", "scan"])
def select(spark, tmp_path, make_context, monkeypatch, request):
    """(pool, sample_id, score) of the rows taken, by rank; ranks and passes are checked."""
    spark.sparkContext.setCheckpointDir(str(tmp_path / "checkpoints"))
    monkeypatch.setattr(complexity_first, "SCAN_ROWS", 7)

    def run(rows, size, partitions=2):
        frame = spark.createDataFrame(rows, ROWS).repartition(partitions)
        if request.param == "passes":
            taken = by_passes(frame, size)
        else:
            taken = by_scan(make_context("select"), frame, size)
        found = sorted(taken.collect(), key=lambda row: row["rank"])
        assert [row["rank"] for row in found] == list(range(len(found)))
        passes = [int(row["reason"].removeprefix("pass ")) for row in found]
        assert passes == sorted(passes)
        return [(row["pool"], row["sample_id"], row["score"]) for row in found]

    return run


@given(rows=tagged_rows(), share=st.sampled_from([0.1, 0.5, 1.0, 1.5]))
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(rows=[("a", "s1", ["x"])], share=1.0)
def test_selection_of_any_pool_equals_the_sequential_loop(select, rows, share):
    fillable = sum(bool(tags) for *_, tags in rows)
    size = max(1, round(share * fillable))
    expected = sequential(rows, size)
    assert select(rows, size) == expected
    assert len(expected) == min(size, fillable)


def test_selection_takes_complex_rows_first_then_starts_another_pass(select):
    rows = [
        ("p", "s1", ["a"]),
        ("p", "s2", ["a", "b"]),
        ("p", "s3", ["a", "b", "c"]),
        ("p", "s4", ["d"]),
        ("p", "s5", []),
    ]
    # Pass 1 covers all tags with s3 and s4, pass 2 takes s2, pass 3 what is left.
    assert [key for _, key, _ in select(rows, 10)] == ["s3", "s4", "s2", "s1"]
    assert [score for *_, score in select(rows, 2)] == [3.0, 1.0]


def test_selection_ties_break_by_sample_id_then_pool(select):
    rows = [("b", "s2", ["x"]), ("b", "s1", ["x"]), ("a", "s2", ["x"]), ("a", "s10", ["x"])]
    order = [(pool, key) for pool, key, _ in select(rows, 4)]
    assert order == [("b", "s1"), ("a", "s10"), ("a", "s2"), ("b", "s2")]


def test_selection_in_the_middle_of_a_pass_stops_at_size(select):
    rows = [("p", f"s{i}", [f"t{i}", "all"]) for i in range(6)]
    assert [key for _, key, _ in select(rows, 3)] == ["s0", "s1", "s2"]


@pytest.mark.parametrize("rows", [[], [("p", "s1", []), ("q", "s1", [])]])
def test_selection_without_tags_takes_nothing(select, rows):
    assert select(rows, 5) == []


def test_selection_is_the_same_for_any_partitioning(select):
    rows = [
        ("ab"[i % 2], f"s{i * 7 % 50:02}", sorted({f"t{i % 9}", f"t{i * i % 11}", "t0"}))
        for i in range(50)
    ]
    one, eight = select(rows, 20, 1), select(rows, 20, 8)
    assert one == eight == sequential(rows, 20)
