"""TACOS's selection against a plain loop: means of both orders, equal fill, what is unpaired."""

import random

import pytest

from handmade import put, recorded, rows_of, sample
from parity.comparative import chosen, scores_of
from tagsieve.config import validate
from tagsieve.selection import Compared, Sources, select
from tagsieve.selection.config import ComparativeConfig

COMPARED = Compared("c1", "p1", 2, "judge-1")


@pytest.fixture
def compared_lake(lake):
    """Clusters of 1 to 40 rows; some pairs lack an order, one row came after the judge."""
    rng = random.Random(4)
    sizes = [1, 1, 2, 3, 8, 17, 40]
    ids = [f"s{n:03}" for n in range(sum(sizes) + 2)]
    rng.shuffle(ids)
    numbers = [cluster for cluster, size in enumerate(sizes) for _ in range(size)]
    lake.clusters = dict(zip(ids, [*numbers, 5, 0], strict=True))
    new = set(ids[-2:])
    lake.twin = next(k for k, cluster in lake.clusters.items() if cluster == 1)
    pairs, judgements = [], {}
    for cluster in set(numbers):
        rows = sorted(k for k, c in lake.clusters.items() if c == cluster and k not in new)
        for number in (0, 1, 2):
            rng.shuffle(rows)
            drawn = list(zip(rows[::2], rows[1::2], strict=False))
            if len(rows) % 2 and len(rows) > 1:
                drawn.append((rows[-1], rows[0]))
            pairs += [(str(cluster), number, *sorted(pair)) for pair in drawn]
    for _, _, a, b in pairs:
        for pair in ((a, b), (b, a)):
            if rng.random() < 0.9:
                judgements[pair] = (rng.randrange(1, 101), rng.randrange(2, 200) / 2)
    put(lake, "samples", [sample("p", key, row=n) for n, key in enumerate(ids)])
    put(lake, "samples", [sample("target", "t1"), sample("q", lake.twin, row=1)])
    rows = [{"clustering": "c1", "sample_id": k, "cluster": c} for k, c in lake.clusters.items()]
    rows.append({"clustering": "c1", "sample_id": "t1", "cluster": 1})
    rows += [{"clustering": "c2", "sample_id": k, "cluster": 0} for k in ids]
    put(lake, "clusters", rows)
    named = dict.fromkeys(pairs)
    put(lake, "pairs", [
        {"pairing": "p1", "group_id": g, "round": n, "a": a, "b": b} for g, n, a, b in named
    ])  # fmt: skip
    put(lake, "judgements", [
        {"judgement_id": f"{judge} {a} {b}", "kind": "pair", "judge": judge, "items": [
            {"id": a, "position": 0, "score": scores[0] / (1 + (judge == "other"))},
            {"id": b, "position": 1, "score": scores[1]}]}
        for judge in ("judge-1", "other") for (a, b), scores in judgements.items()
    ])  # fmt: skip
    lake.scores = scores_of([pair[2:] for pair in pairs if pair[1] < 2], judgements)
    lake.new = new
    return lake


def run(lake, engines, run_id="r1", **settings):
    config = validate(ComparativeConfig, {"strategy": "comparative"} | settings, "t")
    sources = Sources(compared=COMPARED)
    line = recorded(lake, engines, "select", run_id, select, config, sources, ["p"], ["target"])
    rows = sorted(rows_of(lake, "selections"), key=lambda row: row["rank"])
    return line, rows


def test_rows_are_those_of_the_loop(compared_lake, engines):
    lake = compared_lake
    # A new row beside the only one of its cluster: neither was compared.
    unjudged = {key for key, cluster in lake.clusters.items() if cluster == 0}
    for number, size in enumerate((7, 500)):
        line, rows = run(lake, engines, f"r{number}", size=size)
        expected = chosen(lake.clusters, lake.scores, size)
        assert [row["sample_id"] for row in rows] == expected
        assert [row["score"] for row in rows] == [lake.scores.get(key) for key in expected]
        assert line.kept == min(size, len(expected))
    assert not unjudged & set(expected)
    told = {row["sample_id"]: row["reason"] for row in rows}
    single = next(key for key, cluster in lake.clusters.items() if cluster == 1)
    assert told[single] == "unpaired, cluster 1"
    assert line.metrics["unpaired"] == 1
    lacking = len(lake.clusters) - len(expected)
    assert line.rejected == {"unjudged": lacking, "target": 1, "other_pool": 1}
    assert lake.new <= lake.clusters.keys() - set(expected)


def test_ids_do_not_depend_on_partitions(compared_lake, engines):
    spark = engines.spark
    before = spark.conf.get("spark.sql.shuffle.partitions")
    found = []
    try:
        for number in ("1", "5", "17"):
            spark.conf.set("spark.sql.shuffle.partitions", number)
            _, rows = run(compared_lake, engines, f"r{number}", size=25, name=f"s{number}")
            found.append([row["sample_id"] for row in rows if row["selection"] == f"s{number}"])
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 25
