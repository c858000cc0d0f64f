"""The strategies by scores, tags and vectors, from tables to a selection, against plain loops."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from handmade import put, recorded, rows_of, sample, tagged
from parity import selecting
from parity.complexity_first import complexity_first as sequential
from selected import chosen, select_config
from selection.test_repr_filter import bunched
from tagsieve.engines import vector_rows
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import Lake
from tagsieve.selection import Sources, outcome, select

COUNT = 260
TAGS = ("complexity_first", "tag_coverage")
WORKERS = [1, 2, pytest.param(8, marks=pytest.mark.soak)]
SOURCES = Sources("v1", {"c": "c-1", "q": "q-2"}, "e-1")


@pytest.fixture(scope="module")
def rows():
    """Rows in two pools with scores (many equal), tags and vectors (some the same)."""
    rng = np.random.default_rng(4)
    vectors = bunched(4, COUNT, 24)
    made = []
    for n, vector in enumerate(vectors):
        tags = [f"t{tag}" for tag in rng.zipf(1.6, size=rng.integers(0, 5)) if tag < 90]
        made.append(
            {
                "pool": "ab"[n % 2],
                "sample_id": f"s{n * 7919 % 1000:04}",
                "c": float(rng.integers(1, 4)),
                "q": float(rng.integers(1, 4)),
                "tags": sorted(set(tags)),
                "vector": vector.tolist(),
                "kind": f"k{n % 7 % 3}" if n % 9 else "none",
            }
        )
        made[-1]["score"] = made[-1]["c"] * made[-1]["q"]
    return made


@pytest.fixture(scope="module")
def full_lake(rows, tmp_path_factory):
    """A lake that holds the rows."""
    lake = Lake(str(tmp_path_factory.mktemp("selected") / "lake"))
    samples = [
        sample(row["pool"], row["sample_id"], row=n, meta={"kind": row["kind"]} if n % 9 else {})
        for n, row in enumerate(rows)
    ]
    put(lake, "samples", samples)
    put(lake, "tags", [tagged(row["sample_id"], *row["tags"]) for row in rows])
    put(
        lake,
        "scores",
        [
            {"sample_id": row["sample_id"], "turn": 0, "scorer": scorer, "value": row[name]}
            for row in rows
            for name, scorer in SOURCES.scorers.items()
        ],
    )
    put(lake, "embeddings", [vector_of(row["sample_id"], row["vector"]) for row in rows])
    return lake


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Many groups, as of a large pool."""
    monkeypatch.setitem(vector_rows.WRITTEN, "parquet.block.row.count.limit", 16)


@pytest.fixture
def lake(full_lake, tmp_path):
    return Lake(str(shutil.copytree(full_lake.root, tmp_path / "lake")))


@pytest.fixture
def run(lake, engines):
    numbers = iter(range(100))

    def selected(**values):
        return run_in(lake, engines, f"r{next(numbers)}", **values)

    return selected


def run_in(lake, engines, run_id, **values):
    scored = {} if values["strategy"] == "stratified" else {"score": "c * q"}
    values = {"name": "mine", **scored} | values
    if values["strategy"] in ("kcenter", "kmeans", "random", "full", *TAGS):
        del values["score"]
    step = (select_config(values), SOURCES, ["a", "b"])
    return recorded(lake, engines, f"select {values['name']}", run_id, select, *step)


def vector_of(key, vector, encoder="e-1"):
    return {"sample_id": key, "encoder": encoder, "vector": vector}


def test_top_score_takes_the_best_or_the_lowest(run, rows, lake):
    done = run(strategy="top_score", size=40)
    assert chosen(lake) == selecting.top_score(rows, 40)
    assert done.rejected == {"not_selected": COUNT - 40}
    run(strategy="top_score", size=COUNT, lowest=True, score="q - c")
    found = {row["sample_id"]: row["score"] for row in rows_of(lake, "selections")}
    assert found == {row["sample_id"]: row["q"] - row["c"] for row in rows}
    assert [found[key] for _, key in chosen(lake)] == sorted(found.values())


def test_top_score_draws_among_equal_scores(run, rows, lake):
    run(strategy="top_score", score="q", size=100, ties="random", seed=5)
    assert chosen(lake) == selecting.drawn(rows, 5, 100, by=lambda row: -row["q"])


def test_random_takes_by_the_rows_own_draw(run, rows, lake):
    run(strategy="random", size=50, seed=3)
    first = chosen(lake)
    assert first == selecting.drawn(rows, 3, 50)
    run(strategy="random", size=50, seed=4, name="other")
    assert set(chosen(lake, "other")) != set(first)
    # A grown pool draws its new rows among the old ones.
    put(lake, "samples", [sample("c", f"new{n}", row=n) for n in range(40)])
    run(strategy="random", size=COUNT + 40, seed=3)
    grown = chosen(lake)
    assert [key for key in grown if key[0] != "c"][:50] == first
    assert any(pool == "c" for pool, _ in grown[:50])


def test_draws_are_uniform():
    """Inclusion of each of 60 rows in a draw of 15, over 1,200 seeds."""
    rows = [{"pool": "p", "sample_id": f"s{n}"} for n in range(60)]
    counts = Counter(key for seed in range(1200) for key in selecting.drawn(rows, seed, 15))
    expected = 1200 * 15 / 60
    spread = sum((counts["p", f"s{n}"] - expected) ** 2 for n in range(60)) / (expected * 0.75)
    # Chi-squared with 59 degrees of freedom is beyond these once in 500 times each.
    assert 32 < spread < 96


def test_full_takes_all_by_id(run, rows, lake):
    done = run(strategy="full", where="pool = 'a'")
    assert chosen(lake) == selecting.keys(
        selecting.by_id([row for row in rows if row["pool"] == "a"])
    )
    assert done.rejected == {"where": COUNT // 2}


@pytest.mark.parametrize(
    ("by", "allocation", "weight"),
    [
        ("pool", "equal", lambda n: 1.0),
        ("tag", "sqrt", lambda n: n**0.5),
        ("meta.kind", "proportional", float),
        ("meta.kind", "temperature", lambda n: n ** (1 / 3)),
    ],
)
def test_stratified_shares_out_by_weights(run, rows, lake, by, allocation, weight):
    run(strategy="stratified", by=by, allocation=allocation, temperature=3, size=90, seed=2)
    stratum = selecting.strata(rows, by)
    assert chosen(lake) == selecting.stratified(rows, stratum, weight, 90, seed=2)
    found = {row["reason"] for row in rows_of(lake, "selections")}
    assert found <= {f"{by} {name}" for name in stratum.values()}


def test_stratified_keeps_quotas_and_limits_and_says_what_lacks(run, rows, lake):
    limits = {"quotas": {"k1": 7}, "at_least": {"none": 20}, "at_most": {"k0": 30, "k2": 11}}
    settings = {"strategy": "stratified", "by": "meta.kind", "score": "c * q", **limits}
    done = run(size=60, **settings)
    stratum = selecting.strata(rows, "meta.kind")
    expected = selecting.stratified(
        rows, stratum, float, 60, least={"none": 20, "k1": 7}, most={"k0": 30, "k1": 7, "k2": 11}
    )
    assert chosen(lake) == expected
    counts = Counter(row["reason"] for row in rows_of(lake, "selections"))
    assert counts["meta.kind k1"] == 7
    assert counts["meta.kind none"] >= 20
    done = run(size=COUNT, **settings)
    lacking = COUNT - 30 - 11 - 7 - sum(name == "none" for name in stratum.values())
    assert done.metrics["shortfall"] == lacking > 0
    with pytest.raises(RunError, match=rf"stratified found {COUNT - lacking} rows"):
        run(size=COUNT, shortfall="error", **settings)


def test_stratified_by_cluster_takes_from_each(run, lake):
    run(strategy="stratified", by="cluster", allocation="equal", clusters=8, size=50, seed=1)
    taken = chosen(lake)
    run(strategy="kmeans", clusters=8, size=50, seed=1, name="kmeans")
    assert taken == chosen(lake, "kmeans")


def test_where_reads_tags_scores_and_samples(run, rows, lake):
    # Turns are "ask q" and "say q".
    where = "array_contains(tags, 't1') AND c > 1 AND lang = \"en\" AND size(turns) = 2"
    where += " AND chars = 10"
    done = run(strategy="top_score", score="q", where=where, size=COUNT)
    meeting = [row for row in rows if "t1" in row["tags"] and row["c"] > 1]
    expected = selecting.best_first([row | {"score": row["q"]} for row in meeting])
    assert chosen(lake) == selecting.keys(expected)
    assert done.rejected == {"where": COUNT - len(meeting)}
    faults = {"quality > 3": "quality", "pool +": "Syntax error", "pool": "not a boolean"}
    for wrong, told in faults.items():
        with pytest.raises(UsageError, match=rf"select\.where={re.escape(wrong)}: .*{told}"):
            run(strategy="random", where=wrong)


def test_where_decides_before_one_pool_is_chosen(run, lake):
    put(lake, "samples", [sample("c", "s0000")])
    run(strategy="full", where="pool = 'c'")
    assert chosen(lake) == [("c", "s0000")]


def test_tokens_end_a_selection_before_the_row_that_would_be_too_many(run, rows, lake):
    done = run(strategy="random", tokens=100, tokens_by="q", seed=3)
    expected, total = [], 0.0
    by_key = {(row["pool"], row["sample_id"]): row["q"] for row in rows}
    for key in selecting.drawn(rows, 3, COUNT):
        total += by_key[key]
        if total > 100:
            break
        expected.append(key)
    assert chosen(lake) == expected
    assert done.metrics["shortfall"] == 0
    assert done.rejected == {"not_selected": COUNT - len(expected)}


@pytest.mark.parametrize("partitions", [1, 4, 32])
def test_ids_are_the_same_for_any_partitions(run, rows, lake, spark, monkeypatch, partitions):
    """Also where so many rows are taken that all are sorted."""
    monkeypatch.setattr(outcome, "_AT_ONCE", 10)
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", partitions)
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", False)
    try:
        run(strategy="stratified", by="tag", allocation="equal", score="c - rank(q)", size=120)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
        spark.conf.unset("spark.sql.adaptive.coalescePartitions.enabled")
    share = {q: sum(row["q"] < q for row in rows) / COUNT for q in (1.0, 2.0, 3.0)}
    scored = [row | {"score": row["c"] - share[row["q"]]} for row in rows]
    stratum = selecting.strata(rows, "tag")
    assert chosen(lake) == selecting.stratified(scored, stratum, lambda n: 1.0, 120)


@pytest.mark.parametrize(("coverage", "size"), [(0.4, 60), (1.0, 70), (0.9, 12)])
def test_tag_coverage_covers_a_share_and_keeps_to_the_mean(run, rows, lake, coverage, size):
    run(strategy="tag_coverage", coverage=coverage, mean_tags=1.7, size=size)
    tags = {tag for row in rows for tag in row["tags"]}
    adding, filling = selecting.tag_coverage(rows, tags, coverage, 1.7, size)
    found = chosen(lake)
    assert found[: len(adding)] == adding
    assert set(found[len(adding) :]) == set(filling)
    count = {(row["pool"], row["sample_id"]): len(row["tags"]) for row in rows}
    if filling:
        away = [abs(np.mean([count[key] for key in keys]) - 1.7) for keys in (found, adding)]
        assert away[0] < away[1]


@pytest.mark.soak
def test_selections_without_others_use_the_pool_up(run, rows, lake):
    left, names = rows, []
    for number in range(3):
        name = f"part-{number}"
        done = run(strategy="complexity_first", size=40, name=name, without=list(names))
        triples = [(row["pool"], row["sample_id"], row["tags"]) for row in left]
        expected = [key[:2] for key in sequential(triples, 40)]
        assert chosen(lake, name) == expected
        assert done.rejected["in_other_selection"] == 40 * number
        left = [row for row in left if (row["pool"], row["sample_id"]) not in set(expected)]
        names.append(name)
    with pytest.raises(UsageError, match=r"select\.without names lost, which is no selection"):
        run(strategy="random", without=["lost"])


def test_tag_diversity_takes_what_adds_a_tag(run, rows, lake):
    run(strategy="tag_diversity", size=COUNT)
    expected = selecting.tag_diversity(rows, COUNT)
    assert chosen(lake) == expected
    assert 10 < len(expected) < 90
    run(strategy="tag_diversity", size=7)
    assert chosen(lake) == expected[:7]


@pytest.mark.parametrize("workers", WORKERS)
def test_repr_filter_takes_what_the_loop_takes_and_says_why(run, rows, lake, workers):
    expected, nearest = selecting.filtered(rows, 0.8, COUNT)
    done = run(strategy="repr_filter", tau=0.8, size=COUNT, explain=True, workers=workers)
    assert chosen(lake) == expected
    assert done.rejected == {"too_alike": COUNT - len(expected)}
    for row in rows_of(lake, "selections"):
        assert row["nearest"] == nearest[row["pool"], row["sample_id"]]
        assert (row["reason"] == "first") == (row["rank"] == 0) == (row["similarity"] is None)
        assert row["rank"] == 0 or row["similarity"] <= 0.8
    told = rows_of(lake, "rejects")
    assert len(told) == COUNT - len(expected)
    for row in told:
        payload = json.loads(row["payload"])
        assert payload["nearest"] == nearest[row["pool"], row["sample_id"]]
        assert payload["similarity"] > 0.8


def test_repr_filter_that_is_full_leaves_the_rest_undecided(run, rows, lake):
    everything, _ = selecting.filtered(rows, 0.8, COUNT)
    expected, decided = selecting.filtered(rows, 0.8, 25)
    done = run(strategy="repr_filter", tau=0.8, size=25, explain=True)
    assert chosen(lake) == expected == everything[:25]
    refused = len(decided) - 25
    assert done.rejected == {"too_alike": refused, "not_selected": COUNT - len(decided)}
    reasons = [row["reason"] for row in rows_of(lake, "rejects")]
    assert sorted(reasons) == sorted(done.rejected.elements())


@pytest.mark.parametrize("workers", WORKERS)
def test_kcenter_takes_the_farthest_of_all_shares(run, rows, lake, workers):
    run(strategy="kcenter", size=60, seed=3, workers=workers)
    found = chosen(lake)
    expected, distances = selecting.centred(rows, found[0], 60)
    assert found == expected
    scores = [row["score"] for row in sorted(rows_of(lake, "selections"), key=lambda r: r["rank"])]
    assert scores[0] is None
    np.testing.assert_allclose(scores[1:], distances[1:], rtol=1e-9, atol=1e-6)


def test_kmeans_takes_as_many_from_each_cluster_and_keeps_its_centroids(run, rows, lake):
    run(strategy="kmeans", clusters=8, size=50, seed=1)
    cluster = {row["sample_id"]: row["cluster"] for row in rows_of(lake, "clusters")}
    centroids = {row["cluster"]: row["vector"] for row in rows_of(lake, "centroids")}
    assert len(cluster) == COUNT
    for row in rows:
        apart = {c: np.square(np.subtract(row["vector"], v)).sum() for c, v in centroids.items()}
        assert cluster[row["sample_id"]] == min(apart, key=apart.get)
    taken = [cluster[key] for _, key in chosen(lake)]
    sizes = [list(cluster.values()).count(c) for c in range(8)]
    counts = [taken.count(c) for c in range(8)]
    least = min(count for count, size in zip(counts, sizes, strict=True) if count < size)
    assert sum(counts) == 50
    assert all(n in (size, least, least + 1) for n, size in zip(counts, sizes, strict=True))
    # Another size takes from the same clusters, and starts with the same rows.
    first = chosen(lake)
    version = lake.version("clusters"), lake.version("centroids")
    run(strategy="kmeans", clusters=8, size=20, seed=1, name="fewer")
    assert chosen(lake, "fewer") == first[:20]
    assert (lake.version("clusters"), lake.version("centroids")) == version


@pytest.mark.parametrize(
    "first",
    [
        {"strategy": "kmeans", "where": "meta['kind'] = 'k1'"},
        *(
            pytest.param(values, marks=pytest.mark.soak)
            for values in (
                {"strategy": "semdedup", "score": "log(c - 1)"},
                {"strategy": "stratified", "by": "cluster", "without": ["best"]},
            )
        ),
    ],
)
def test_clusters_do_not_depend_on_selections_of_other_candidates(
    run, lake, engines, tmp_path, first
):
    fresh = Lake(str(shutil.copytree(lake.root, tmp_path / "fresh")))
    settings = {"clusters": 6, "size": 50, "seed": 1}
    run(strategy="top_score", size=90, name="best")
    run(**settings | first, name="first")
    run(strategy="kmeans", **settings)
    run_in(fresh, engines, "r", strategy="kmeans", **settings)
    assert chosen(lake) == chosen(fresh)
    # All others of the same kind share them.
    version = lake.version("centroids")
    run(strategy="stratified", by="cluster", **settings, name="strata", dedupe="none")
    assert lake.version("centroids") == version


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 8))])
def test_semdedup_keeps_the_best_of_near_duplicates(run, rows, lake, workers):
    settings = {"clusters": 6, "threshold": 0.85, "explain": True, "workers": workers}
    done = run(strategy="semdedup", size=COUNT, **settings)
    cluster = {row["sample_id"]: row["cluster"] for row in rows_of(lake, "clusters")}
    for row in rows:
        row["cluster"] = cluster[row["sample_id"]]
    expected, twins = selecting.deduped(rows, 0.85, COUNT)
    assert chosen(lake) == expected
    assert done.rejected == {"near_duplicate": len(twins)}
    assert 20 < len(twins) < 200
    told = {
        (row["pool"], row["sample_id"]): json.loads(row["payload"])["nearest"]
        for row in rows_of(lake, "rejects")
    }
    assert told == twins
    if workers == 1:
        run(strategy="semdedup", size=30, **settings)
        assert chosen(lake) == expected[:30]


@pytest.mark.parametrize(
    ("settings", "fewer"),
    [
        pytest.param(
            {"strategy": "semdedup", "clusters": 6, "threshold": 0.85, "explain": True},
            {},
            marks=pytest.mark.soak,
        ),
        ({"strategy": "kmeans", "clusters": 12}, {"clusters": 3}),
    ],
)
def test_selections_of_one_run_are_what_each_is_alone(lake, engines, tmp_path, settings, fewer):
    """The second one writes fewer files for Spark than the first."""
    alone = Lake(str(shutil.copytree(lake.root, tmp_path / "alone")))
    settings = settings | {"size": COUNT}
    fewer = settings | fewer | {"name": "fewer", "where": "meta['kind'] = 'k1'"}
    run_in(lake, engines, "both", **settings)
    found, expected = run_in(lake, engines, "both", **fewer), run_in(alone, engines, "one", **fewer)
    assert chosen(lake, "fewer") == chosen(alone, "fewer")
    assert (found.input, found.kept, found.rejected) == (
        expected.input, expected.kept, expected.rejected,
    )  # fmt: skip

    def refused(of):
        rows = rows_of(of, "rejects", step="select fewer")
        return sorted(
            (row["pool"], row["sample_id"], row["reason"], row["payload"]) for row in rows
        )

    assert refused(lake) == refused(alone)
    there = rows_of(lake, "clusters")
    assert all(row in there for row in rows_of(alone, "clusters"))
    for row in there:
        assert row["cluster"] < int(re.search(r"-k(\d+)-", row["clustering"])[1])


def test_unusable_vectors_are_quarantined_by_reason_and_counted(run, lake):
    bad = {"w": [1.0, 2.0], "z": [0.0] * 24, "n": [float("nan")] * 24, "i": [float("inf")] * 24}
    put(lake, "samples", [sample("c", key, row=n) for n, key in enumerate([*bad, "x"])])
    put(lake, "embeddings", [vector_of(key, vector) for key, vector in bad.items()])
    put(lake, "embeddings", [vector_of("x", [1.0] * 24, "another")])
    put(lake, "scores", [
        {"sample_id": key, "turn": 0, "scorer": scorer, "value": 0.5}
        for key in bad for scorer in ("c-1", "q-2")
    ])  # fmt: skip
    for values in (
        {"strategy": "repr_filter", "tau": 0.8},
        {"strategy": "kmeans", "clusters": 5},
    ):
        done = run(size=COUNT + 9, **values)
        assert done.input == COUNT + 5
        assert done.quarantined == {"vector_width": 1, "zero_vector": 1, "nan_vector": 2}
        scored = values["strategy"] == "repr_filter"
        assert done.rejected["unscored" if scored else "no_vector"] == 1
        rows_there = rows_of(lake, "quarantine", run_id=done.run_id)
        assert {row["key"]: row["reason"] for row in rows_there} == {
            "c/w": "vector_width", "c/z": "zero_vector", "c/n": "nan_vector", "c/i": "nan_vector",
        }  # fmt: skip


def test_an_encoder_or_a_scorer_that_has_made_nothing_leaves_the_selection_as_it_is(
    run, rows, lake, engines
):
    run(strategy="top_score", size=10)
    before = chosen(lake)
    for n, (sources, values, why) in enumerate((
        (replace(SOURCES, encoder="other-1"), {"strategy": "kcenter"},
         r"embeddings has no row by other-1, .*; those there are by e-1\. Run the step embed"),
        (replace(SOURCES, scorers={"c": "c-9", "q": "q-2"}),
         {"strategy": "top_score", "score": "c * q"},
         r"scores has no row by c-9, .*; those there are by c-1, q-2\. Run the step score"),
    )):  # fmt: skip
        config = select_config({"name": "mine", "size": 10, **values})
        with pytest.raises(RunError, match=why):
            recorded(lake, engines, "select mine", f"odd{n}", select, config, sources, ["a", "b"])
    assert chosen(lake) == before


def test_rows_that_lack_a_score_are_named(run, rows, lake):
    put(lake, "samples", [sample("c", "two", queries=("q1", "q2")), sample("c", "none", row=1)])
    put(lake, "scores", [
        {"sample_id": "two", "turn": 0, "scorer": scorer, "value": 9.0} for scorer in ("c-1", "q-2")
    ])  # fmt: skip
    done = run(strategy="top_score", size=10)
    assert done.rejected == {"unscored": 2, "not_selected": COUNT - 10}
    assert chosen(lake) == selecting.top_score(rows, 10)
