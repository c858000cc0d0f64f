"""Which seeds are drawn, and the ids of what is to become of them."""

import hashlib
from collections import Counter

import pytest

from evolved import pair
from handmade import put
from tagsieve.evolving.seeds import drawn_seeds, with_chains


@pytest.fixture
def draw(lake, spark, make_config):
    def drawn(**settings):
        rows = drawn_seeds(lake.read(spark, "samples"), make_config(**settings)).collect()
        return {row.seed_id for row in rows}

    return drawn


def test_seeds_are_drawn_by_hash_and_stay_as_the_pool_grows(lake, draw):
    put(lake, "samples", [pair(f"Question {n}") for n in range(300)])
    first = draw(seeds=100)
    assert len(first) == 100
    assert draw(seeds=50) < first
    assert draw(seeds=100) == first
    assert len(draw(seeds=100, seed=1) & first) < 60  # a third, by chance
    put(lake, "samples", [pair(f"Another question {n}") for n in range(30)])
    grown = draw(seeds=100)
    assert 80 < len(grown & first) < 100
    assert len(draw(seeds=1000)) == 330


def test_chains_have_the_ids_that_hashes_give_whatever_their_number(spark, make_config):
    rows = [(f"s{n}", "ask", None) for n in range(200)]
    seeds = spark.createDataFrame(rows, "seed_id string, instruction string, response string")
    names = ["constraints", "deepen", "reasoning"]
    few, many = (
        {
            row.seed_id: row
            for row in with_chains(seeds, make_config(rounds=n), "gen", "judge", names).collect()
        }
        for n in (3, 20)
    )
    for seed, row in many.items():
        expected = [seed]
        for operator in row.operators:
            text = f"gen {operator} {expected[-1]}"
            expected.append(hashlib.sha256(text.encode()).hexdigest()[:32])
        assert row.ids == expected
        assert few[seed].ids == expected[:4]  # more rounds go on from those that are there
        assert few[seed].judgement_id != row.judgement_id
    used = Counter(operator for row in many.values() for operator in row.operators)
    assert set(used) == set(names)
    assert all(1100 < often < 1570 for often in used.values())  # of 4,000, a third each
