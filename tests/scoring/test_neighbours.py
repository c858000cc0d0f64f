"""Scores by neighbours with real Spark, Ray and Delta: exact, of a set, once."""

import numpy as np
import pytest

import tagsieve.engines.vector_rows as vector_rows
import tagsieve.scoring.neighbours as neighbours
from handmade import put, rows_of, sample
from parity.neighbours import kth_distances
from scored import PAIRS, add_pairs
from selected import chosen
from tagsieve.console import Console
from tagsieve.errors import RunError, UsageError
from tagsieve.recipe import Recipe
from tagsieve.runner import run_steps
from tagsieve.scoring import ScoreConfig, score, scorer_fingerprints, vector_set

KEYS = [f"s{n:03}" for n in range(320)]
"""More than Parquet puts into its smallest group of rows, which is 100."""


@pytest.fixture
def vectors():
    random = np.random.default_rng(0)
    found = random.normal(size=(320, 16)).astype(np.float32)
    found[10:14] = found[3]
    return found


def add(lake, keys, vectors, encoder="e", pools=("p",)):
    put(lake, "samples", [sample(pool, key) for key in keys for pool in pools])
    add_vectors(lake, keys, vectors, encoder)


def add_vectors(lake, keys, vectors, encoder="e"):
    rows = zip(keys, np.asarray(vectors).tolist(), strict=True)
    put(lake, "embeddings",
        [{"sample_id": key, "encoder": encoder, "vector": row} for key, row in rows])  # fmt: skip


def config(*ks, **settings):
    scorers = [{"kind": "neighbour_distance", "name": f"n{k}", "neighbours": k} for k in ks]
    return ScoreConfig(scorers=scorers, **settings)


def run(make_context, settings, limit=None):
    context = make_context("score", limit)
    score(context, settings, encoder="e")
    context.run.check()
    return context.run


def distances(lake, make_context, k):
    """sample id -> value, of the scorer of the set that is there now."""
    set_now = vector_set(make_context("look"), "e")
    name = scorer_fingerprints(config(k), vectors=set_now)[f"n{k}"]
    rows = rows_of(lake, "scores", scorer=name)
    assert {row["turn"] for row in rows} <= {-1}
    assert len({row["sample_id"] for row in rows}) == len(rows)
    return {row["sample_id"]: row["value"] for row in rows}


def test_neighbour_distance_equals_the_plain_loop_whatever_the_blocks_and_workers(
    lake, make_context, vectors, monkeypatch, spark
):
    add(lake, KEYS, vectors, pools=("p", "q"))
    add_vectors(lake, KEYS, vectors[::-1], encoder="another")
    done = run(make_context, config(1, 3))
    assert (done.input, done.kept, done.unit) == (640, 640, "score")
    found = {k: distances(lake, make_context, k) for k in (1, 3)}
    for k, by_key in found.items():
        wanted = kth_distances(vectors, k)
        assert [by_key[key] for key in KEYS] == pytest.approx(wanted.tolist(), abs=1e-14)
        assert {by_key[key] for key in (KEYS[3], KEYS[10], KEYS[13])} == {0.0}
    # Groups of a few rows, a task for each of three workers, other partitions: the same bits.
    monkeypatch.setitem(vector_rows.WRITTEN, "parquet.block.size", 1)
    monkeypatch.setattr(neighbours, "TASK_BYTES", 4000)
    other = type(lake)(lake.root + "-2")
    add(other, KEYS[::-1], vectors[::-1])
    context = make_context("score")
    context.run.lake = other
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    try:
        moved = context.__class__(other, context.engines, context.run, context.console)
        score(moved, config(3, replicas=3), encoder="e")
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")
    rows = rows_of(other, "scores")
    assert {row["sample_id"]: row["value"] for row in rows} == found[3]
    # The same set in another order has the same scorer.
    assert {row["scorer"] for row in rows} <= {row["scorer"] for row in rows_of(lake, "scores")}


def test_neighbour_distance_is_of_a_set_and_a_grown_one_scores_anew(lake, make_context, vectors):
    add(lake, KEYS[:20], vectors[:20])
    assert run(make_context, config(1)).kept == 20
    version = lake.version("scores")
    again = run(make_context, config(1))
    assert (again.known, again.kept, lake.version("scores")) == (20, 0, version)
    # Another encoder's vectors are nobody's neighbours.
    add_vectors(lake, KEYS[:20], vectors[20:40], encoder="another")
    again = run(make_context, config(1))
    assert (again.known, again.kept) == (20, 0)
    add(lake, KEYS[20:], vectors[20:])
    grown = run(make_context, config(1))
    assert (grown.known, grown.kept) == (0, 320)
    wanted = kth_distances(vectors, 1).tolist()
    found = distances(lake, make_context, 1)
    assert [found[key] for key in KEYS] == pytest.approx(wanted, abs=1e-14)
    assert len(rows_of(lake, "scores")) == 340


def test_neighbour_distance_sets_bad_vectors_aside_and_leaves_out_who_has_none(
    lake, make_context, vectors
):
    bad = vectors.copy()
    bad[0], bad[1, 3], bad[2, 0] = 0, np.nan, np.inf
    add(lake, KEYS, bad)
    put(lake, "samples", [sample("p", "without")])
    put(lake, "samples", [sample("p", "narrow")])
    add_vectors(lake, ["narrow"], [[1.0, 2.0]])
    done = run(make_context, config(1))
    assert (done.input, done.kept, done.rejected) == (322, 317, {"no_vector": 1})
    assert done.quarantined == {"zero_vector": 1, "nan_vector": 2, "vector_width": 1}
    told = {row["key"].split()[1]: row for row in rows_of(lake, "quarantine")}
    assert told.keys() == {*KEYS[:3], "narrow"}
    assert told[KEYS[0]]["error"] == "the vector is zero"
    found = distances(lake, make_context, 1)
    wanted = kth_distances(vectors[3:], 1).tolist()
    assert [found[key] for key in KEYS[3:]] == pytest.approx(wanted, abs=1e-14)


def test_neighbour_distance_in_a_set_with_too_few_others_is_rejected(lake, make_context, vectors):
    add(lake, KEYS[:4], vectors[:4])
    done = run(make_context, config(3, 4))
    assert (done.kept, done.rejected) == (4, {"too_few_vectors": 4})
    empty = type(lake)(lake.root + "-2")
    put(empty, "samples", [sample("p", "alone")])
    context = make_context("score")
    context.run.lake = empty
    moved = context.__class__(empty, context.engines, context.run, context.console)
    score(moved, config(1), encoder="e")
    context.run.check()
    assert context.run.rejected == {"no_vector": 1}


@pytest.mark.soak
def test_neighbour_distance_killed_between_commits_goes_on(
    lake, make_context, vectors, monkeypatch
):
    add(lake, KEYS, vectors)
    limited = run(make_context, config(2), limit=7)
    assert (limited.input, limited.kept) == (7, 7)
    monkeypatch.setitem(vector_rows.WRITTEN, "parquet.block.size", 1)
    monkeypatch.setattr(neighbours, "TASK_BYTES", 4000)
    commit = lake.append_next

    def die(name, *arguments):
        if name == "scores" and lake.arrow("scores").num_rows > 7:
            raise RunError("the machine died")
        return commit(name, *arguments)

    monkeypatch.setattr(lake, "append_next", die)
    with pytest.raises(RunError, match="died"):
        run(make_context, config(2, commit_seconds=0.001))
    monkeypatch.undo()
    done = lake.arrow("scores").num_rows
    assert 7 < done < 320
    rest = run(make_context, config(2))
    assert (rest.known, rest.kept) == (done, 320 - done)
    wanted = kth_distances(vectors, 2).tolist()
    found = distances(lake, make_context, 2)
    assert [found[key] for key in KEYS] == pytest.approx(wanted, abs=1e-14)


def test_neighbour_distance_without_an_encoder_is_refused(lake, make_context):
    with pytest.raises(UsageError, match="n1: kind neighbour_distance compares the vectors"):
        score(make_context("score"), config(1))


def test_recipe_selects_the_most_distant_by_the_vectors_of_its_encoder(lake, engines):
    add_pairs(lake, [*PAIRS, ("What is the capital of  France ?", "Lyon.")])
    scorer = {"kind": "neighbour_distance", "name": "lonely"}
    recipe = Recipe(
        lake=lake.root,
        steps=["embed", "score", "select"],
        score={"scorers": [scorer]},
        select={"strategy": "top_score", "score": "lonely", "size": 4, "name": "mine"},
    )
    run_steps(recipe, recipe.steps, Console(quiet=True), engines)
    values = {row["sample_id"]: row["value"] for row in rows_of(lake, "scores")}
    by_distance = sorted(values, key=lambda key: (-values[key], key))
    assert [key for _, key in chosen(lake)] == by_distance[:4]
    assert max(values[key] for key in by_distance[4:]) < 0.1  # the two capitals
    run_steps(recipe, ["score"], Console(quiet=True), engines)
    last = max(rows_of(lake, "runs", step="score"), key=lambda row: row["started"])
    assert (last["known"], last["kept"]) == (6, 0)
