"""From raw tags to an ontology: counts, the frequency filter, display forms, tags of samples."""

import gzip
import json

import pytest

from parity import normalization as reference
from tagsieve.ontology.analysis import funnel
from tagsieve.ontology.config import PROTECTED, NormalizeConfig
from tagsieve.ontology.normalization import ontology_rows, sample_tags, tag_counts
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
def ontology(spark):
    """Raw tag -> (count, status, rule_tag), of given counts."""

    def make(counts, partitions=1, **config):
        frame = spark.createDataFrame(list(counts.items()), COUNTS).repartition(partitions)
        rows = ontology_rows(frame, NormalizeConfig(**config)).collect()
        assert all(row["tag"] == row["rule_tag"] for row in rows)
        assert len(rows) == len(counts)
        return {row["raw_tag"]: (row["count"], row["status"], row["rule_tag"]) for row in rows}

    return make


def test_tag_counts_are_over_distinct_queries_of_samples(frames):
    samples, raw_tags = frames(
        {"s1": ["q1", "q2"], "s2": ["q1"], "s3": ["q1", "q1"], "s4": ["q4"]},
        {"q1": ["sql", "sql", "Rust"], "q2": ["sql"], "q3": ["sql", "orphan"], "q4": []},
    )
    by_query = tag_counts(raw_tags, samples, NormalizeConfig())
    assert dict(by_query.collect()) == {"sql": 2, "Rust": 1}
    by_turn = tag_counts(raw_tags, samples, NormalizeConfig(weight="occurrences"))
    assert dict(by_turn.collect()) == {"sql": 5, "Rust": 4}


def test_ontology_at_min_count_keeps_and_below_drops(ontology):
    assert ontology({"sql": 2, "rust": 1, "go": 3}, min_count=2) == {
        "sql": (2, "kept", "sql"),
        "rust": (1, "rare", None),
        "go": (3, "kept", "go"),
    }


@pytest.mark.parametrize(
    ("count_after", "stats", "maths"),
    [
        ("raw", [(2, "kept", "statistics"), (1, "rare", None)], (1, "rare", None)),
        ("rule", [(2, "kept", "statistics"), (1, "kept", "statistics")], (1, "rare", None)),
    ],
)
def test_ontology_count_after_rule_measures_the_stem_group(ontology, count_after, stats, maths):
    counts = {"statistics": 2, "Statistic": 1, "maths": 1}
    rows = ontology(counts, min_count=2, count_after=count_after)
    assert [rows["statistics"], rows["Statistic"]] == stats
    assert rows["maths"] == maths


def test_ontology_count_after_rule_keeps_a_group_of_rare_spellings(ontology):
    rows = ontology({"Web_App": 1, "web app": 1, "web apps": 1}, min_count=3, count_after="rule")
    assert {row[1:] for row in rows.values()} == {("kept", "web app")}
    rows = ontology({"Web_App": 1, "web app": 1}, min_count=3, count_after="rule")
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
    rows = sample_tags(samples, raw_tags, ontology).collect()
    assert len(rows) == 4
    assert {row["sample_id"]: (row["tags"], row["turn_tags"]) for row in rows} == {
        "two turns": (["rust", "sql", "zig"], [["rust", "sql"], ["sql", "zig"]]),
        "same turn twice": (["sql", "zig"], [["sql", "zig"], ["sql", "zig"]]),
        "abstained": ([], [[]]),
        "all rare": ([], [[]]),
    }


def test_normalisation_is_the_same_for_any_partitioning(frames):
    samples = {f"s{i}": [f"q{i}", f"q{i // 2}"] for i in range(40)}
    spellings = ["Data_Base", "data bases", "data base", "C++", "c", "信息", "unit-test", "testing"]
    answers = {f"q{i}": [spellings[i % 8], spellings[i * i % 7]] for i in range(40)}
    results = []
    for partitions in (1, 7):
        sample_frame, raw_tags = frames(samples, answers, partitions)
        config = NormalizeConfig(min_count=4)
        rows = ontology_rows(tag_counts(raw_tags, sample_frame, config), config)
        tags = sample_tags(sample_frame, raw_tags, rows)
        results.append((sorted(rows.collect()), sorted(tags.collect())))
    assert results[0] == results[1]
    assert len(results[0][1]) == 40


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
def test_normalisation_of_real_tags_equals_plain_python(frames, real_tags, min_count):
    samples, answers = real_tags
    config = NormalizeConfig(min_count=min_count)
    expected_counts = reference.tag_counts(samples, answers)
    expected = reference.ontology(expected_counts, min_count, PROTECTED)
    sample_frame, raw_tags = frames(samples, answers)
    rows = ontology_rows(tag_counts(raw_tags, sample_frame, config), config).cache()
    found = {row["raw_tag"]: (row["count"], row["status"], row["tag"]) for row in rows.collect()}
    assert found == expected
    tags = sample_tags(sample_frame, raw_tags, rows).collect()
    found_tags = {row["sample_id"]: (row["tags"], row["turn_tags"]) for row in tags}
    assert found_tags == reference.sample_tags(samples, answers, expected)
    stages = [row[1:] for row in sorted(funnel(rows).collect())]
    assert stages == reference.funnel(expected)
    raw, frequency, rule = (tags for _, tags, _ in stages)
    assert raw > frequency > rule > 50
    rows.unpersist()
