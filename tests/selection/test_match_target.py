"""match_target against plain loops: tags first, then neighbours, then score."""

from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handmade import put, recorded, rows_of, sample, tagged
from parity.target import match_target as plain
from selected import select_config
from selection.test_repr_filter import bunched
from tagsieve.engines import vector_rows
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.selection import Sources, select
from tagsieve.selection.neighbours import Lists

COUNT = 150
numbers = count()
SOURCES = Sources("v1", {"q": "q-2"}, "e-1")


def drawn(seed, count, pools, prefix):
    """Rows with tags (few, many shared), vectors (some the same) and scores (many equal)."""
    rng = np.random.default_rng(seed)
    return [
        {
            "pool": pools[n % len(pools)],
            "sample_id": f"{prefix}{n * 7919 % 1000:04}",
            "tags": sorted({f"t{tag}" for tag in rng.zipf(1.5, size=rng.integers(0, 5)) % 60}),
            "vector": vector.tolist(),
            "q": float(rng.integers(1, 4)),
        }
        for n, vector in enumerate(bunched(seed, count, 16))
    ]


@pytest.fixture(scope="module")
def rows():
    return drawn(1, COUNT, "ab", "s")


@pytest.fixture(scope="module")
def targets():
    return drawn(2, 12, ["wanted"], "w")


@pytest.fixture(scope="module")
def filled(rows, targets, tmp_path_factory):
    """A lake with pools and a target; one conversation of the target is in a pool, too."""
    lake = Lake(str(tmp_path_factory.mktemp("target") / "lake"))
    both = [*rows, *targets]
    samples = [sample(row["pool"], row["sample_id"], row=n) for n, row in enumerate(both)]
    samples.append(sample("a", targets[0]["sample_id"], row=len(both)))
    put(lake, "samples", samples)
    put(lake, "tags", [tagged(row["sample_id"], *row["tags"]) for row in both])
    put(
        lake,
        "embeddings",
        [{"sample_id": r["sample_id"], "encoder": "e-1", "vector": r["vector"]} for r in both],
    )
    scores = [{"sample_id": r["sample_id"], "turn": 0, "scorer": "q-2", "value": r["q"]}
              for r in both]  # fmt: skip
    put(lake, "scores", scores)
    return lake


@pytest.fixture
def run(filled, engines, monkeypatch):
    # Many groups, as of a large pool.
    monkeypatch.setitem(vector_rows.WRITTEN, "parquet.block.row.count.limit", 16)

    def selected(targets=("wanted",), **values):
        values = {"name": "mine", "strategy": "match_target"} | values
        step = (select_config(values), SOURCES, ["a", "b"], targets)
        return recorded(filled, engines, "select", f"r{next(numbers)}", select, *step)

    return selected


def taken(lake):
    rows = sorted(rows_of(lake, "selections", selection="mine"), key=lambda row: row["rank"])
    assert [row["rank"] for row in rows] == list(range(len(rows)))
    return [(row["pool"], row["sample_id"], row["reason"], row["nearest"]) for row in rows]


@pytest.mark.parametrize(
    "values",
    [
        {"size": 10},
        {"size": 60, "neighbours": 5},
        {"size": 80, "neighbours": 3, "passes": 2, "score": "q"},
        {"size": 100, "passes": None},
    ],
)
def test_takes_what_the_loop_takes(run, rows, targets, filled, values):
    done = run(**values)
    everyone = [*rows, targets[0] | {"pool": "a"}]
    expected = plain(everyone, targets, **values)
    assert taken(filled) == expected
    wanted = {tag for row in targets for tag in row["tags"]}
    there = {tag for row in everyone for tag in row["tags"]}
    ids = {key for _, key, *_ in expected}
    covered = {tag for row in everyone if row["sample_id"] in ids for tag in row["tags"]}
    assert done.metrics["target"] == len(targets)
    assert done.metrics["target_tags"] == len(wanted)
    assert done.metrics["target_tags_there"] == len(wanted & there)
    assert done.metrics["target_tags_covered"] == len(wanted & covered)
    assert done.rejected["target"] == len(targets)
    assert done.metrics["shortfall"] == max(0, values["size"] - len(expected))


@pytest.mark.soak
def test_workers_do_not_matter_and_a_smaller_selection_is_the_beginning(run, filled):
    run(size=70, neighbours=9)
    first = taken(filled)
    run(size=70, neighbours=9, workers=3)
    assert taken(filled) == first
    run(size=40, neighbours=9)
    assert taken(filled) == first[:40]


def test_by_vectors_or_tags_alone(run, filled):
    run(size=30, by=["vectors"], neighbours=4)
    assert {reason.split()[0] for *_, reason, _ in taken(filled)} == {"neighbour"}
    # The conversation that is in a pool, too, is its own nearest.
    assert taken(filled)[0][1] == taken(filled)[0][3]
    done = run(size=COUNT, by=["tags"])
    assert {reason for *_, reason, _ in taken(filled)} == {"tags, pass 1"}
    assert done.metrics["shortfall"] > 0


def test_a_target_is_never_chosen_from(run, filled):
    done = run(strategy="full")
    assert done.rejected == {"target": 12}
    assert {pool for pool, *_ in taken(filled)} == {"a", "b"}


def test_a_target_that_is_not_there_is_named(run):
    with pytest.raises(RunError, match=r"select\.target=nobody: the lake has no conversation"):
        run(target=["nobody"])


def test_a_target_without_vectors_is_named(run, filled, tmp_path, engines):
    lake = Lake(str(tmp_path / "bare"))
    put(lake, "samples", [sample("a", "s1"), sample("wanted", "w1")])
    put(lake, "tags", [tagged("s1", "t1"), tagged("w1", "t2")])
    put(lake, "embeddings", [{"sample_id": "s1", "encoder": "e-1", "vector": [1.0, 2.0]}])
    config = select_config({"strategy": "match_target", "size": 1})
    with pytest.raises(RunError, match="no conversation of the target has a vector"):
        recorded(lake, engines, "select", "r", select, config, SOURCES, ["a"], ["wanted"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.5, 0.9])), max_size=40),
       st.integers(1, 5), st.integers(0, 8), st.randoms())  # fmt: skip
def test_lists_do_not_depend_on_the_order_of_pairs(pairs, k, size, random):
    numbered = [(of, at, alike) for at, (of, alike) in enumerate(pairs)]
    expected = {}
    for of in range(4):
        own = sorted((-alike, at) for o, at, alike in numbered if o == of)[:k]
        for place, (alike, at) in enumerate(own):
            expected[at] = (place, alike, of)
    order = sorted(expected, key=lambda at: (*expected[at][:2], at))[:size]
    random.shuffle(numbered)
    lists = Lists(4, k)
    for start in range(0, len(numbered), 3):
        of, at, alike = zip(*numbered[start : start + 3], strict=True)
        lists.add(np.array(of), np.array(at), np.array(alike))
    at, of, place, alike = lists.by_place(size)
    assert at.tolist() == order
    assert list(zip(place.tolist(), (-alike).tolist(), of.tolist(), strict=True)) == [
        expected[n] for n in order
    ]
