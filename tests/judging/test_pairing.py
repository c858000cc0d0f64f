"""Pairs of groups: everyone has one, and what was paired stays so."""

import random

import pytest

from parity.pairing import new_pairs as plain
from tagsieve.judging.pairing import new_pairs

PAIR = "group_id string, round int, a string, b string"


@pytest.fixture
def paired(spark):
    def run(groups, known=(), rounds=1, seed=0, partitions=2):
        rows = [(group, key) for group, ids in groups.items() for key in ids]
        members = spark.createDataFrame(rows, "group_id string, sample_id string")
        before = spark.createDataFrame(list(known), PAIR)
        found = new_pairs(members.repartition(partitions), before, rounds, seed).collect()
        assert len(set(found)) == len(found)
        return {tuple(row) for row in found}

    return run


def drawn_groups(seed, sizes):
    rng = random.Random(seed)
    return {f"g{n}": [f"s{rng.getrandbits(40):010x}" for _ in range(size)]
            for n, size in enumerate(sizes)}  # fmt: skip


def test_pairs_are_those_of_the_loop_and_everyone_has_one(paired):
    groups = drawn_groups(1, [1, 2, 3, 4, 7, 40])
    found = paired(groups, rounds=3, seed=5)
    assert found == plain(groups, set(), 3, 5)
    for group, ids in groups.items():
        for number in range(3):
            own = [pair[2:] for pair in found if pair[:2] == (group, number)]
            assert {key for pair in own for key in pair} == (set(ids) if len(ids) > 1 else set())
            assert len(own) == (len(ids) + 1) // 2 * (len(ids) > 1)
    assert paired(groups, rounds=3, seed=5, partitions=1) == found


def test_groups_that_grow_keep_their_pairs(paired):
    groups = drawn_groups(2, [1, 5, 30])
    before = paired(groups)
    assert paired(groups, before) == set()
    more = drawn_groups(3, [1, 2, 3])
    grown = {group: ids + more[group] for group, ids in groups.items()}
    found = paired(grown, before)
    assert found == plain(grown, before, 1, 0)
    assert not found & before
    new = {key for ids in more.values() for key in ids}
    assert all({a, b} & (new | set(groups["g0"])) for _, _, a, b in found)
    # Two new ones are a pair; of three, the third takes an old one.
    assert [sum(pair[0] == group for pair in found) for group in grown] == [1, 1, 2]
