"""The select step: pools, shortfalls, the ledger, and selections that replace each other."""

import pytest

from handmade import put, recorded, rows_of, sample, tagged
from selected import chosen, select_config
from tagsieve.errors import RunError
from tagsieve.selection import Sources, select


@pytest.fixture
def small_lake(lake):
    """Seven samples: two conversations are in two pools each, one has no row in tags."""
    places = [place.split() for place in ("b s1", "a s1", "a s2", "c s2", "a s3", "b s4", "b s5")]
    put(lake, "samples", [sample(pool, key, row=row) for row, (pool, key) in enumerate(places)])
    put(
        lake,
        "tags",
        [
            tagged("s1", "sql", "rust"),
            tagged("s2", "sql", "poem", "haiku"),
            tagged("s3", "sql"),
            tagged("s4"),
            tagged("s5", "wrong version", version="v0"),
        ],
    )
    return lake


@pytest.fixture
def run_select(small_lake, engines):
    count = iter(range(100))

    def run(pools=("a", "b", "c"), version="v1", **config):
        values = {"name": "mine", "size": 2} | config
        step = (select_config(values), Sources(version), list(pools))
        return recorded(small_lake, engines, "select", f"r{next(count)}", select, *step)

    return run


def test_select_dedupe_pools_gives_a_conversation_to_its_first_pool_once(run_select, small_lake):
    run = run_select(pools=["b", "c", "a"], size=2, explain=True)
    assert chosen(small_lake) == [("c", "s2"), ("b", "s1")]
    counts = {"untagged": 1, "other_pool": 2, "not_selected": 2}
    assert (run.unit, run.input, run.kept, run.rejected) == ("sample", 7, 2, counts)
    assert run.metrics["shortfall"] == 0
    rows = rows_of(small_lake, "selections")
    assert [(row["score"], row["run_id"]) for row in rows] == [(3.0, "r0"), (2.0, "r0")]
    assert run.written.keys() == {"selections", "rejects"}
    rejects = rows_of(small_lake, "rejects", run_id="r0", step="select")
    assert len(rejects) == run.rejected.total()
    assert {(row["source"], row["source_row"]): row["reason"] for row in rejects} == {
        ("file:///a.jsonl", 1): "other_pool",
        ("file:///a.jsonl", 2): "other_pool",
        ("file:///a.jsonl", 4): "not_selected",
        ("file:///b.jsonl", 5): "not_selected",
        ("file:///b.jsonl", 6): "untagged",
    }

    version = small_lake.version("selections")
    again = run_select(pools=["b", "c", "a"], size=2, explain=True)
    assert (again.input, again.known, again.kept) == (7, 7, 0)
    assert small_lake.version("selections") == version
    assert len(rows_of(small_lake, "rejects")) == len(rejects)


def test_select_shortfall_error_says_what_to_set_and_writes_nothing(run_select, small_lake):
    with pytest.raises(RunError, match=r"select.size=9: .* 3 rows; set select.size=3, .*report"):
        run_select(size=9, shortfall="error")
    assert rows_of(small_lake, "selections") == []
    assert rows_of(small_lake, "runs")[0]["status"] == "failed"


def test_select_dedupe_none_takes_all_pools_and_replaces_only_its_name(run_select, small_lake):
    row = {"pool": "a", "rank": 0, "score": 1.0, "reason": "pass 1", "run_id": "earlier"}
    old = [("mine", "gone"), ("mine", "s2"), ("other", "s9")]
    put(small_lake, "selections", [row | {"selection": n, "sample_id": key} for n, key in old])
    run = run_select(size=10, dedupe="none")
    assert chosen(small_lake)[0] == ("a", "s2")
    assert sorted(chosen(small_lake)) == [
        ("a", "s1"), ("a", "s2"), ("a", "s3"), ("b", "s1"), ("c", "s2"),
    ]  # fmt: skip
    assert run.rejected == {"untagged": 1, "not_selected": 1}
    assert run.metrics["shortfall"] == 5
    assert {row["run_id"] for row in rows_of(small_lake, "selections", selection="mine")} == {"r0"}
    assert chosen(small_lake, "other") == [("a", "s9")]


def test_select_back_to_an_earlier_config_gives_its_rows(run_select, small_lake):
    for size in (1, 2, 1):
        run_select(size=size)
    assert len(chosen(small_lake)) == 1
