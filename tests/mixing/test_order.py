"""Random orders that depend on a row alone, and positions without sorting."""

import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from pyspark.sql import functions as F
from scipy import stats

from parity import mixing
from tagsieve.engines.order import in_order
from tagsieve.mixing import order

PLACES = "part string, pool string, sample_id string, amount long"


def rows(count, part="p"):
    return [(part, f"pool {n % 3}", f"s{n:05}", n % 5) for n in range(count)]


def test_drawn_is_the_hash_of_seed_pool_and_id(spark):
    frame = spark.createDataFrame(rows(50), PLACES)
    for seed, of in ((0, 0), (-7, 3), (2**40, 0)):
        key = order.drawn(seed, F.lit(of).cast("long"))
        found = frame.select("pool", "sample_id", key.alias("key")).collect()
        assert len(found) == 50
        for row in found:
            assert row["key"] == mixing.key(seed, of, row["pool"], row["sample_id"])


def test_drawn_orders_are_uniform_and_do_not_agree(spark):
    """Over 60 seeds, each of 300 rows is among the first 75 about as often as any other."""
    count, seeds, first = 300, 60, 75
    frame = spark.createDataFrame(rows(count), PLACES)
    keys = [order.drawn(seed, F.lit(0)).alias(f"k{seed}") for seed in range(seeds)]
    table = np.array([list(row) for row in frame.select(*keys).collect()])
    places = table.argsort(axis=0).argsort(axis=0)
    times = (places < first).sum(axis=1)
    expected = stats.binom.pmf(range(seeds + 1), seeds, first / count) * count
    # Classes with at least five rows to be expected.
    edges = [0, 10, 12, 14, 16, 18, 20, seeds + 1]
    found = [((times >= low) & (times < high)).sum() for low, high in pairwise(edges)]
    wanted = [expected[low:high].sum() for low, high in pairwise(edges)]
    assert stats.chisquare(found, np.array(wanted) * sum(found) / sum(wanted)).pvalue > 1e-3
    means = places.mean(axis=1) - (count - 1) / 2
    z = means / np.sqrt((count**2 - 1) / 12 / seeds)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    orders = [order.drawn(0, F.lit(of)).alias(of) for of in ("cap", "other")]
    both = np.array([list(row) for row in frame.select(*orders).collect()])
    assert abs(stats.spearmanr(both[:, 0], both[:, 1]).statistic) < 0.2


@pytest.mark.parametrize("partitions", [1, 5])
def test_in_order_counts_places_and_amounts_within_each_group(spark, partitions):
    given = rows(400, "a") + rows(37, "b")
    frame = spark.createDataFrame(given, PLACES).repartition(partitions)
    found = in_order(frame, ["part"], order.drawn(3)).collect()
    assert found[0].asDict().keys() == {"part", "pool", "sample_id", "amount", "place", "through"}
    for part in "ab":
        mine = [dict(zip(("part", "pool", "sample_id", "n"), row, strict=True)) for row in given]
        expected, through = [], 0
        for row in mixing.in_order([row for row in mine if row["part"] == part], 3):
            through += row["n"]
            expected.append((row["sample_id"], through))
        placed = sorted((row for row in found if row["part"] == part), key=lambda r: r["place"])
        assert [row["place"] for row in placed] == list(range(len(expected)))
        assert [(row["sample_id"], row["through"]) for row in placed] == expected


def test_in_order_breaks_ties_of_hashes_by_id_then_pool(spark):
    frame = spark.createDataFrame([("p", x, y, 1) for x in "ba" for y in "tsu"], PLACES)
    found = in_order(frame, ["part"], F.lit(5).cast("long")).orderBy("place").collect()
    told = [(row["sample_id"], row["pool"]) for row in found]
    assert told == [(y, x) for y in "stu" for x in "ab"]


def test_interleaved_is_the_order_of_places_in_their_parts(spark):
    rng = random.Random(5)
    shapes = [[rng.randint(1, 40) for _ in range(rng.randint(1, 5))] for _ in range(60)]
    shapes += [[1, 1, 1], [7, 7], [1, 30], [30, 1], [2, 3, 6]]
    given, expected = [], {}
    for number, counts in enumerate(shapes):
        keys = []
        for part, count in enumerate(counts):
            others = [(n, int(q < part)) for q, n in enumerate(counts) if q != part]
            for place in range(count):
                given.append((number, part, place, count, others))
                keys.append((Fraction(2 * place + 1, 2 * count), part, place))
        for position, (_, part, place) in enumerate(sorted(keys)):
            expected[number, part, place] = position
    schema = "n int, part int, place long, rows long, others array<struct<rows: long, first: long>>"
    rng.shuffle(given)
    frame = spark.createDataFrame(given, schema).withColumn("position", order.interleaved())
    found = {(r["n"], r["part"], r["place"]): r["position"] for r in frame.collect()}
    assert found == expected
    for number, counts in enumerate(shapes):
        of = {p: part for (n, part, _), p in found.items() if n == number}
        seen = [0] * len(counts)
        for position in range(sum(counts)):
            seen[of[position]] += 1
            for part, count in enumerate(counts):
                # No beginning is further from the proportions than a row of each part.
                share = (position + 1) * count / sum(counts)
                assert abs(seen[part] - share) <= 1 + len(counts) / 2


def test_interleaved_of_large_parts_is_exact(spark):
    n, m = 1_500_000_000, 999_999_937
    given = [(place, n, [(m, 1)]) for place in (0, n // 3, n - 1)]
    schema = "place long, rows long, others array<struct<rows: long, first: long>>"
    found = spark.createDataFrame(given, schema).select("place", order.interleaved()).collect()
    for place, position in found:
        earlier = int(Fraction((2 * place + 1) * m, 2 * n) + Fraction(1, 2))
        assert position == place + earlier
