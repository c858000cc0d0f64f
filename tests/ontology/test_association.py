"""Association rules: mined by Spark against mlxtend and by hand, applied by joins."""

import gzip
import json
import random

import pandas as pd
import pytest
from mlxtend.frequent_patterns import association_rules, fpgrowth
from mlxtend.preprocessing import TransactionEncoder

from parity import association as reference
from tagsieve.console import Console
from tagsieve.errors import RunError
from tagsieve.ontology.association import (
    aliases,
    dropped_items,
    dropped_tags,
    frequent_items,
    item_baskets,
    mine,
    named_rules,
)
from tagsieve.ontology.config import AssociationConfig

QUIET = Console(quiet=True)


@pytest.fixture
def mined(spark):
    """(baskets frame, items, item baskets, rules) of lists of tags."""

    def make(baskets, partitions=2, **config):
        rows = [(f"q{n}", list(tags)) for n, tags in enumerate(baskets)]
        frame = spark.createDataFrame(rows, "query_id string, tags array<string>")
        frame = frame.repartition(partitions).cache()
        settings = AssociationConfig(**config)
        items = frequent_items(frame, settings.min_support).cache()
        numbered = item_baskets(frame, items).cache()
        return frame, items, numbered, mine(numbered, items, len(baskets), settings, QUIET).cache()

    return make


def rules_of(mined):
    _, items, _, rules = mined
    return {
        (tuple(r["antecedent"]), r["consequent"]): (r["support"], r["confidence"], r["lift"])
        for r in named_rules(rules, items).collect()
    }


def by_mlxtend(baskets, min_support, min_confidence):
    """{(antecedent, consequent): (support, confidence, lift)} with one consequent."""
    encoder = TransactionEncoder().fit(baskets)
    frame = pd.DataFrame(encoder.transform(baskets), columns=encoder.columns_)
    # It compares count / n with the share: half a basket less is the count itself.
    sets = fpgrowth(frame, (min_support - 0.5) / len(baskets), use_colnames=True)
    if sets.empty:
        return {}
    found = association_rules(sets, metric="confidence", min_threshold=min_confidence)
    return {
        (tuple(sorted(row.antecedents)), next(iter(row.consequents))): (
            round(row.support * len(baskets)),
            pytest.approx(row.confidence),
            pytest.approx(row.lift),
        )
        for row in found.itertuples()
        if len(row.consequents) == 1
    }


@pytest.fixture(scope="module")
def leetcode(request):
    path = request.config.rootpath.parent / "shared" / "data" / "tags" / "leetcode_topics.json.gz"
    if not path.exists():
        pytest.skip("the shared data folder beside the checkout is not there")
    with gzip.open(path, "rt", encoding="utf-8") as text:
        return [topics for _, topics in json.load(text)]


@pytest.mark.parametrize(("min_support", "rules"), [(40, 15), (20, 43), (10, 132), (5, 669)])
def test_rules_of_real_baskets_have_the_known_counts(mined, leetcode, min_support, rules):
    made = mined(leetcode, min_support=min_support)
    found = rules_of(made)
    assert len(found) == rules
    assert found == by_mlxtend(leetcode, min_support, 0.99)


def test_pairs_are_the_rules_of_fpgrowth_with_one_antecedent(mined, leetcode):
    for config in ({"min_support": 5}, {"min_support": 20, "min_confidence": 0.5}):
        whole = rules_of(mined(leetcode, **config))
        pairs = rules_of(mined(leetcode, method="pairs", **config))
        assert pairs == {rule: told for rule, told in whole.items() if len(rule[0]) == 1}
        assert len(pairs) > 10


@pytest.mark.parametrize("seed", range(6))
def test_rules_of_random_baskets_are_those_of_mlxtend_and_of_all_subsets(mined, seed):
    rng = random.Random(seed)
    baskets = [
        sorted(set(rng.choices("abcdefgh", weights=range(1, 9), k=rng.randrange(7))))
        for _ in range(rng.randrange(20, 90))
    ]
    support, confidence = rng.randrange(1, 9), rng.choice([0.3, 0.5, 0.75, 1.0])
    made = mined(baskets, 1 + seed, min_support=support, min_confidence=confidence)
    found = rules_of(made)
    assert found == by_mlxtend(baskets, support, confidence)
    counted = {rule: told[:2] for rule, told in found.items()}
    assert counted == reference.rules(baskets, support, confidence)


def test_itemset_at_exactly_the_minimum_is_found_for_any_number_of_baskets(mined):
    # 40 / n rounded up in floating point is 41 baskets for many n.
    for count in (41, 47, 49, 55, 82, 93, 98, 107):
        baskets = [["a", "b"]] * 7 + [["c"]] * (count - 7)
        assert set(rules_of(mined(baskets, 1, min_support=7))) == {(("a",), "b"), (("b",), "a")}


def test_template_made_baskets_are_refused_by_the_name_of_the_setting(mined):
    baskets = [[f"t{n:02}" for n in range(30)]] * 40
    with pytest.raises(RunError, match=r"1\.1e\+09 frequent itemsets, .*association\.max_basket"):
        mined(baskets)
    assert len(rules_of(mined(baskets, method="pairs"))) == 30 * 29


def test_one_large_basket_alone_is_no_reason_to_refuse(mined):
    many = [f"t{n:02}" for n in range(40)]
    baskets = [many, *([[tag] for tag in many] * 3), *([["a", "b"]] * 5)]
    assert len(rules_of(mined(baskets, min_support=4))) == 2


def tags_left(made):
    frame, items, numbered, rules = made
    gone = dropped_tags(dropped_items(numbered, rules), items)
    dropped = {row["query_id"]: set(row["dropped"]) for row in gone.collect()}
    return {
        row["query_id"]: set(row["tags"]) - dropped.get(row["query_id"], set())
        for row in frame.collect()
    }


@pytest.mark.parametrize("seed", range(4))
def test_rules_applied_by_joins_are_those_of_one_query_after_the_other(mined, seed):
    rng = random.Random(seed)
    implied = {"a": "b", "c": "a", "d": "e", "e": "d", "f": "a"}
    baskets = []
    for _ in range(80):
        tags = set(rng.choices("abcdefgh", k=rng.randrange(1, 5)))
        baskets.append(
            sorted(tags | {implied[t] for t in tags if t in implied and rng.random() < 0.97})
        )
    made = mined(baskets, 1 + seed, min_support=3, min_confidence=0.9)
    _, items, _, rules = made
    place = {row["tag"]: row["item"] for row in items.collect()}
    name = {item: tag for tag, item in place.items()}
    found = [(tuple(row["antecedent"]), row["consequent"]) for row in rules.collect()]
    assert found
    expected = {}
    for number, tags in enumerate(baskets):
        there = {place[tag] for tag in tags if tag in place}
        holding = [(x, c) for x, c in found if set(x) <= there and c in there]
        left = {name[item] for item in reference.left(there, holding)}
        expected[f"q{number}"] = left | {tag for tag in tags if tag not in place}
        assert expected[f"q{number}"]
    assert tags_left(made) == expected


def test_table_1_merges_associated_tags(mined):
    """InsTag, table 1: (mathematics, math problem) -> mathematics; (loop, for loop) -> for loop."""
    baskets = [
        *[["math problem", "mathematics"]] * 50,
        *[["math problem"]] * 30,
        *[["for loop", "loop"]] * 45,
        *[["loop"]] * 20,
    ]
    left = tags_left(mined(baskets))
    assert {tuple(tags) for tags in left.values()} == {
        ("mathematics",), ("math problem",), ("for loop",), ("loop",),
    }  # fmt: skip
    assert left["q0"] == {"mathematics"}
    assert left["q80"] == {"for loop"}


def test_aliases_follow_the_best_rule_to_its_end(mined, spark):
    baskets = [*[["a", "b", "c"]] * 5, *[["b", "c"]] * 1, *[["c"]] * 4, *[["x", "y"]] * 3]
    _, items, _, rules = mined(baskets, min_support=3, min_confidence=0.9)
    found = {row["tag"]: row["new"] for row in aliases(spark, rules, items).collect()}
    # a => b, a => c, b => c; x <=> y is a circle, whose first by code points stays.
    assert found == {"b": "a", "c": "a", "y": "x"}
