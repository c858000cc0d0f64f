"""From raw tags to an ontology: counts, the frequency filter, display forms, tags of samples."""

import gzip
import json
from collections import Counter

import pytest

from parity import association
from parity import normalization as reference
from tagsieve.ontology.building import Build
from tagsieve.ontology.config import PROTECTED, NormalizeConfig
from tagsieve.ontology.edits import Edits
from tagsieve.ontology.normalization import query_tags, sample_tags, tag_counts
from tagsieve.records import query_id

SAMPLES = "sample_id string, query_ids array<string>"
RAW_TAGS = "query_id string, tags array<struct<tag: string, explanation: string>>"
COUNTS = "raw_tag string, count long"


@pytest.fixture
def frames(spark):
    """Frames of samples (id -> query ids) and raw tags (query id -> tags)."""

    def make(samples, answers, partitions=2):
        raw = [(query, [(tag, "why") for tag in tags]) for query, tags in answers.items()]
        return (
            spark.createDataFrame(list(samples.items()), SAMPLES).repartition(partitions),
            spark.createDataFrame(raw, RAW_TAGS).repartition(partitions),
        )

    return make


@pytest.fixture
def build(make_context):
    """A finished build of frames under a config."""

    def make(samples, raw_tags, steps=("frequency", "rule"), edits=None, **config):
        settings = NormalizeConfig(steps=steps, **config)
        made = Build.begin(make_context("normalize"), settings, edits or Edits(), raw_tags, samples)
        made.finish()
        return made

    return make


@pytest.fixture
def ontology(frames, build):
    """Raw tag -> (count, status, rule_tag), of given counts: each tag in queries of its own."""

    def make(counts, partitions=1, **config):
        queries = {f"{tag} {n}": [tag] for tag, uses in counts.items() for n in range(uses)}
        samples, raw_tags = frames({query: [query] for query in queries}, queries, partitions)
        rows = build(samples, raw_tags, **config).rows.collect()
        assert all(row["status"] == "rare" or row["tag"] == row["rule_tag"] for row in rows)
        assert len(rows) == len(counts)
        return {row["raw_tag"]: (row["count"], row["status"], row["tag"]) for row in rows}

    return make


def test_tag_counts_are_over_distinct_queries_or_the_turns_that_ask_them(frames):
    samples, raw_tags = frames(
        {"s1": ["q1", "q2"], "s2": ["q1"], "s3": ["q1", "q1"], "s4": ["q4"]},
        {"q1": ["sql", "sql", "Rust"], "q2": ["sql"], "q3": ["sql", "unasked"], "q4": []},
    )
    by_query = tag_counts(raw_tags, samples, "queries")
    assert dict(by_query.collect()) == {"sql": 3, "Rust": 1, "unasked": 1}
    by_turn = tag_counts(raw_tags, samples, "occurrences")
    assert dict(by_turn.collect()) == {"sql": 5, "Rust": 4}


def test_ontology_at_min_count_keeps_and_below_drops(ontology):
    assert ontology({"sql": 2, "rust": 1, "go": 3}, min_count=2) == {
        "sql": (2, "kept", "sql"),
        "rust": (1, "rare", None),
        "go": (3, "kept", "go"),
    }


@pytest.mark.parametrize(
    ("steps", "stats", "maths"),
    [
        (["frequency", "rule"], [(2, "kept", "statistics"), (1, "rare", None)], (1, "rare", None)),
        (
            ["rule", "frequency"],
            [(2, "kept", "statistics"), (1, "kept", "statistics")],
            (1, "rare", None),
        ),
    ],
)
def test_ontology_frequency_after_rule_measures_the_stem_group(ontology, steps, stats, maths):
    counts = {"statistics": 2, "Statistic": 1, "maths": 1}
    rows = ontology(counts, min_count=2, steps=steps)
    assert [rows["statistics"], rows["Statistic"]] == stats
    assert rows["maths"] == maths


def test_ontology_frequency_after_rule_keeps_a_group_of_rare_spellings(ontology):
    rows = ontology(
        {"Web_App": 1, "web app": 1, "web apps": 1}, min_count=3, steps=["rule", "frequency"]
    )
    assert {row[1:] for row in rows.values()} == {("kept", "web app")}
    rows = ontology({"Web_App": 1, "web app": 1}, min_count=3, steps=["rule", "frequency"])
    assert {row[1:] for row in rows.values()} == {("rare", None)}


@pytest.mark.parametrize(
    ("counts", "display"),
    [
        # Surfaces of equal spelling are summed: 3 + 3 beats 5.
        ({"Web_Apps": 3, "web apps": 3, "web app": 5}, "web apps"),
        # As frequent: the shortest.
        ({"connected": 4, "connects": 4, "connecting": 4}, "connects"),
        # As frequent and as long: the first in code-point order.
        ({"connects": 2, "connecte": 2}, "connecte"),
        # What is rare has no say.
        ({"relate": 3, "related": 2, "Related": 2}, "relate"),
    ],
)
def test_ontology_display_is_most_frequent_then_shortest_then_least(ontology, counts, display):
    rows = ontology(counts, min_count=3 if "relate" in counts else 2)
    kept = {row[2] for row in rows.values() if row[1] == "kept"}
    assert kept == {display}


def test_ontology_keeps_languages_apart_and_every_tag_visible(ontology):
    tags = ["C", "C++", "C#", ".NET", "net", "🙂", "++", "信息", "🙂🙂"]
    rows = ontology(dict.fromkeys(tags, 1), min_count=1)
    assert {row[2] for row in rows.values()} == {tag.lower() for tag in tags}


def test_frequency_after_rule_counts_a_query_once_for_all_its_spellings(frames, build):
    samples, raw_tags = frames(
        {"s1": ["q1"], "s2": ["q2"]}, {"q1": ["Loop", "loops"], "q2": ["loops"]}
    )
    for weight in ("queries", "occurrences"):
        made = build(samples, raw_tags, ["rule", "frequency"], min_count=3, weight=weight)
        assert {row["status"] for row in made.rows.collect()} == {"rare"}
    made = build(samples, raw_tags, ["rule", "frequency"], min_count=2)
    assert {row["tag"] for row in made.rows.collect()} == {"loops"}


def test_sample_tags_are_a_union_with_the_turns_in_order(frames, spark):
    samples, raw_tags = frames(
        {
            "two turns": ["q2", "q1"],
            "same turn twice": ["q1", "q1"],
            "abstained": ["none"],
            "all rare": ["rare"],
            "one open": ["q1", "open"],
            "open": ["open"],
        },
        {"q1": ["Sql", "sql", "zig"], "q2": ["rust", "sql"], "none": [], "rare": ["odd"]},
    )
    # A conversation of two pools has one row of tags.
    samples = samples.unionByName(samples)
    kept = [("Sql", "sql"), ("sql", "sql"), ("rust", "rust"), ("zig", "zig"), ("odd", None)]
    ontology = spark.createDataFrame(kept, "raw_tag string, tag string")
    rows = sample_tags(samples, query_tags(raw_tags, ontology)).collect()
    assert len(rows) == 4
    assert {row["sample_id"]: (row["tags"], row["turn_tags"]) for row in rows} == {
        "two turns": (["rust", "sql", "zig"], [["rust", "sql"], ["sql", "zig"]]),
        "same turn twice": (["sql", "zig"], [["sql", "zig"], ["sql", "zig"]]),
        "abstained": ([], [[]]),
        "all rare": ([], [[]]),
    }


def test_normalisation_is_the_same_for_any_partitioning(frames, build):
    samples = {f"s{i}": [f"q{i}", f"q{i // 2}"] for i in range(40)}
    spellings = ["Data_Base", "data bases", "data base", "C++", "c", "信息", "unit-test", "testing"]
    answers = {f"q{i}": [spellings[i % 8], spellings[i * i % 7]] for i in range(40)}
    results = []
    for partitions in (1, 4, 32):
        sample_frame, raw_tags = frames(samples, answers, partitions)
        made = build(
            sample_frame,
            raw_tags,
            ["frequency", "rule", "semantic", "association"],
            min_count=4,
            association={"min_support": 3, "min_confidence": 0.6},
        )
        tags = sample_tags(sample_frame, made.per_query)
        results.append([sorted(made.rows.collect()), made.stages, *_sorted(made.rules, tags)])
    assert results[0] == results[1] == results[2]
    assert len(results[0][2]) > 1
    assert len(results[0][3]) == 40


def _sorted(*frames):
    return [sorted(frame.collect()) for frame in frames]


@pytest.fixture
def real_tags(shared_data):
    """Real tags: samples of one or two queries, and their answers."""
    path = shared_data / "tags" / "llm_tags.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    asked = [query_id(row["query"]) for row in rows]
    answers = {
        query: [tag["tag"] for tag in row["tags"]] for query, row in zip(asked, rows, strict=True)
    }
    samples = {
        row["id"]: [query, asked[place - 1]] if place % 5 == 0 else [query]
        for place, (query, row) in enumerate(zip(asked, rows, strict=True))
    }
    return samples, answers


@pytest.mark.parametrize("min_count", [3, 20])
def test_normalisation_of_real_tags_equals_plain_python(frames, build, real_tags, min_count):
    samples, answers = real_tags
    expected_counts = reference.tag_counts(samples, answers)
    expected = reference.ontology(expected_counts, min_count, PROTECTED)
    sample_frame, raw_tags = frames(samples, answers)
    made = build(sample_frame, raw_tags, min_count=min_count)
    found = {r["raw_tag"]: (r["count"], r["status"], r["tag"]) for r in made.rows.collect()}
    assert found == expected
    tags = sample_tags(sample_frame, made.per_query).collect()
    found_tags = {row["sample_id"]: (row["tags"], row["turn_tags"]) for row in tags}
    assert found_tags == reference.sample_tags(samples, answers, expected)
    stages = [(stage["stage"], stage["tags"], stage["occurrences"]) for stage in made.stages]
    assert stages == reference.funnel(expected)
    raw, frequency, rule = (tags for _, tags, _ in stages)
    assert raw > frequency > rule > 50


@pytest.mark.slow
def test_all_four_steps_on_real_tags_equal_plain_python(frames, build, real_tags, lake):
    samples, answers = real_tags
    sample_frame, raw_tags = frames(samples, answers)
    made = build(
        sample_frame,
        raw_tags,
        ["frequency", "rule", "semantic", "association"],
        min_count=3,
        semantic={"eps": 0.15, "min_samples": 3},
        association={"min_support": 4},
    )
    rows = reference.ontology(reference.tag_counts(samples, answers), 3, PROTECTED)
    uses = Counter()
    for count, _, rule_tag in rows.values():
        if rule_tag is not None:
            uses[rule_tag] += count
    vectors = {row["tag"]: row["vector"] for row in lake.arrow("tag_vectors").to_pylist()}
    assert vectors.keys() == uses.keys()
    names = reference.semantic_names(uses, vectors, eps=0.15, min_samples=3)
    expected = {raw: names.get(row[2]) for raw, row in rows.items()}
    assert {row["raw_tag"]: row["tag"] for row in made.rows.collect()} == expected

    baskets = {query: {expected[tag] for tag in tags} - {None} for query, tags in answers.items()}
    left, rules = association.merged(baskets, min_support=4, min_confidence=0.99)
    found = {(tuple(r["antecedent"]), r["consequent"]): r["support"] for r in made.rules.collect()}
    assert found == rules
    per_query = {row["query_id"]: set(row["query_tags"]) for row in made.per_query.collect()}
    assert per_query == left

    stages = {stage["stage"]: (stage["tags"], stage["occurrences"]) for stage in made.stages}
    assert list(stages) == ["raw", "frequency", "rule", "semantic", "association"]
    assert stages["semantic"][0] == len(set(names.values())) < stages["rule"][0]
    remaining = [tag for tags in left.values() for tag in tags]
    assert stages["association"] == (len(set(remaining)), len(remaining))
    assert len(rules) > 40
    assert stages["association"][1] < sum(map(len, baskets.values()))


def test_odd_tags_are_handled_and_none_is_lost(frames, build):
    many = [f"tag {n}" for n in range(10_000)]
    odd = {
        "long": ["x" * 100_000],
        "empty": [],
        "null": [None, "sql"],
        "control": ["a\x00b", "a\tb", "\u200b"],
        "right to left": ["שאילתת מסד נתונים", "استعلام"],
        "emoji": ["🙂", "👩‍💻", "🙂 data"],
        "many": many,
    }
    samples, raw_tags = frames({query: [query] for query in odd}, odd)
    made = build(
        samples,
        raw_tags,
        ["frequency", "rule", "association"],
        min_count=1,
        association={"min_support": 1, "min_confidence": 1, "method": "pairs", "max_basket": 20},
    )
    rows = {row["raw_tag"]: row for row in made.rows.collect()}
    given = {tag for tags in odd.values() for tag in tags} - {None}
    assert rows.keys() == given
    assert all(row["tag"] for row in rows.values())
    left = {row["query_id"]: row["query_tags"] for row in made.per_query.collect()}
    assert left.keys() == odd.keys()
    assert left["empty"] == []
    assert left["null"] == ["sql"]
    assert all(tags for query, tags in left.items() if query != "empty")
    # Rules come from 20 of its tags only, which imply each other.
    assert len(left["many"]) == 10_000 - 19
    assert made.context.run.metrics["capped_baskets"] == 1
