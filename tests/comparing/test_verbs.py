"""Root verbs and their direct objects: of made instructions, of labelled ones, of all of Alpaca."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from tagsieve.comparing.verbs import first_line, most_frequent, root_verbs, verb_objects

LABELS = Path(__file__).with_name("root_verbs.json")
"""Row of Alpaca -> verb and object, of 100 rows drawn at random and labelled by hand; no text."""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Generate three poems about rain.", ("generate", "poem")),
        ("List five tips", ("list", "tip")),
        ("Name a planet in our solar system.", ("name", "planet")),
        ("Sort the following list in alphabetical order.", ("sort", "list")),
        ("Please, can you describe the process?", ("describe", "process")),
        ("I'd like you to write a poem about rain", ("write", "poem")),
        ("Given a list of numbers, compute their sum.", ("compute", "sum")),
        ("Compare and contrast cats and dogs.", ("compare", "cat")),
        ("Come up with a name.", ("come", None)),
        ("How did the storm affect farmers?", ("affect", "farmer")),
        ("What are the benefits of living well?", (None, None)),
        ("你好", (None, None)),
        ("12 + 3 =", (None, None)),
        (" \n", (None, None)),
        ("", (None, None)),
    ],
)
def test_root_verbs_of_instruction_is_verb_and_object(text, wanted):
    assert root_verbs([text, "Write a story.", text]) == [wanted, ("write", "story"), wanted]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\n 12\n Write a story\nabout him.", "Write a story"),
        ("Question: Describe the sun", "Describe the sun"),
        ("Rewrite the sentence: He ran home", "Rewrite the sentence"),
        ("Translate “Guten Tag” into English", "Translate this into English"),
        ("Explain what's in Ann's 'black box'", "Explain what's in Ann's this"),
        ("Note: 1 + 1", "Note"),
        ("Meet at 10:30 today", "Meet at 10:30 today"),
        ("a" * 900, "a" * 500),
    ],
)
def test_first_line_leaves_out_lead_in_and_material(text, wanted):
    assert first_line(text) == wanted


def test_verb_objects_counts_each_row_and_ranks_by_count_then_name(spark):
    uses = {"one": {"Write a story.": 3, "Write a poem.": 1, "Create a poem.": 4, "你好": 2},
            "two": {"Write a poem.": 1, "List five stories": 1}}  # fmt: skip
    rows = [
        (selection, text, text)
        for selection, texts in uses.items()
        for text, count in texts.items()
        for _ in range(count)
    ]
    frame = spark.createDataFrame(rows, "selection string, query_id string, instruction string")
    counts = verb_objects(frame.repartition(3))
    assert {tuple(row) for row in counts.collect()} == {
        ("one", "write", "story", 3), ("one", "write", "poem", 1), ("one", "create", "poem", 4),
        ("one", None, None, 2), ("two", "write", "poem", 1), ("two", "list", "story", 1),
    }  # fmt: skip
    found = [row.asDict(recursive=True) for row in most_frequent(counts).collect()]
    for row in found:
        row["objects"] = [(each["object"], each["count"]) for each in row["objects"]]
    columns = ("selection", "verb", "count", "objects")
    assert [tuple(row[name] for name in columns) for row in found] == [
        ("one", "create", 4, [("poem", 4)]),
        ("one", "write", 4, [("story", 3), ("poem", 1)]),
        ("two", "list", 1, [("story", 1)]),
        ("two", "write", 1, [("poem", 1)]),
    ]


def alpaca(shared_data):
    with gzip.open(shared_data / "pools/alpaca.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["instruction"] for line in lines]


def test_root_verbs_agree_with_labels_by_hand(shared_data):
    labels = {int(row): tuple(pair) for row, pair in json.loads(LABELS.read_text()).items()}
    texts = alpaca(shared_data)
    found = dict(zip(labels, root_verbs([texts[row] for row in labels]), strict=True))
    given = [row for row in labels if found[row][0] is not None]
    right = [row for row in given if found[row][0] == labels[row][0]]
    assert len(right) >= 0.97 * len(given)
    assert sum(labels[row][0] is not None for row in right) >= 97
    assert sum(found[row] == labels[row] for row in labels) >= 94


@pytest.mark.slow
def test_root_verbs_of_alpaca_are_generate_create_describe(spark, shared_data):
    """Of every fifth row; docs/comparing.md has the counts of all."""
    texts = Counter(alpaca(shared_data)[::5])
    rows = [("alpaca", text, text) for text in texts.elements()]
    frame = spark.createDataFrame(rows, "selection string, query_id string, instruction string")
    verbs = most_frequent(verb_objects(frame)).collect()
    assert [row["verb"] for row in verbs[:3]] == ["generate", "create", "describe"]
    assert verbs[0]["objects"][0]["object"] == "list"
