"""Numbers from what judges write: read where they are plain, refused where they are not."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsieve.engines.llm.verdicts import Scale, Unread, read_score
from tagsieve.scoring.nodes import read_nodes

TEN, FIVE = Scale(1, 10), Scale(0, 5)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 7}', 7),
        (' {"score": 7.0, "why": "two steps of 3"}\n', 7),
        ('{"score": "7"}', 7),
        ('{"score": "7/10"}', 7),
        ('```json\n{"score": 3.5}\n```', 3.5),
        ('Here is my grade: {"score": 10}. I hope it helps.', 10),
        ('<think>It could be 3, or {"score": 4}.</think>\n{"score": 8}', 8),
        ("7", 7),
        ("**7**", 7),
        ("Score: 7.5", 7.5),
        ("rating = 1.", 1),
        ("7/10", 7),
        ("7 out of 10", 7),
    ],
)
def test_read_score_takes_the_agreed_forms(text, score):
    assert read_score(text, TEN) == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot grade this.",
        "Between 6 and 8",
        "7 or 8",
        "The request has 3 parts, so 7.",
        "7/100",
        "70%",
        'I would say 8. {"score": 7}',
        '{"score": 7} {"score": 7}',
        '{"score": 7, "score": 8}',
        '{"score": [7]}',
        '{"score": {"score": 7}}',
        '{"score": true}',
        '{"score": null}',
        '{"score": NaN}',
        '{"score": Infinity}',
        '{"score": 1e999}',
        '{"score": "seven"}',
        '{"grade": 7}',
        '[{"score": 7}, {"score": 7}]',
        '{"score": 7',
        "٧",
        "<think>It is {score: 7}",
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"score": ' + "9" * 5000 + "}",
        '{"score": 7}' + " " * 70_000 + ".",
    ],
)
def test_read_score_refuses_what_is_not_one_number(text):
    found = read_score(text, TEN)
    assert isinstance(found, Unread)
    assert found.reason == "unparseable"


@pytest.mark.parametrize(
    ("text", "scale", "reason"),
    [
        ('{"score": 0}', TEN, "out_of_range"),
        ('{"score": 10.5}', TEN, "out_of_range"),
        ("11", TEN, "out_of_range"),
        ("-1", FIVE, "out_of_range"),
        ('{"score": 1' + "0" * 400 + "}", TEN, "out_of_range"),
        ('{"score": 4.3}', FIVE, "off_scale"),
        ("7.25", TEN, "off_scale"),
    ],
)
def test_read_score_refuses_what_is_not_on_the_scale(text, scale, reason):
    assert read_score(text, scale).reason == reason


def test_scale_has_halves_from_end_to_end():
    assert FIVE.values == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]
    assert [read_score(json.dumps({"score": value}), FIVE) for value in FIVE.values] == FIVE.values


def tree(*nodes):
    return json.dumps({"nodes": [{"id": i, "parent": p, "node": w} for i, p, w in nodes]})


POEM = [(1, 0, "write"), (2, 1, "poem"), (3, 2, "short"), (4, 2, "about the sea")]


def test_read_nodes_counts_distinct_nodes():
    assert read_nodes(tree(*POEM), 200) == 4
    assert read_nodes(f"The tree:\n```json\n{tree(*POEM)}\n```", 200) == 4
    # The same words below the same node are one node, and so are the nodes below them.
    twice = [*POEM, (5, 1, " POEM"), (6, 5, "Short"), (7, 5, "long"), (8, 3, "short")]
    assert read_nodes(tree(*twice), 200) == 6


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not one JSON object"),
        ("5", "not one JSON object"),
        ('{"nodes": []}', "not one JSON object"),
        ('{"nodes": {"id": 1}}', "not one JSON object"),
        (tree(*POEM) + tree(*POEM), "not one JSON object"),
        (tree(*POEM)[:-3], "not one JSON object"),
        ('{"nodes": ["write", "poem"]}', "node 1 .* lacks"),
        (tree((1, 0, "write"), (2, 1, "")), "node 2 .* lacks"),
        (tree((1, 0, "write"), (True, 1, "poem")), "node 2 .* lacks"),
        (tree((1, 0, "write"), (1, 1, "poem")), "two nodes .* id 1"),
        (tree((0, 0, "write")), "two nodes .* id 0"),
        (tree((1, 0, "write"), (2, 3, "poem"), (3, 1, "sea")), "no tree: node 2 is below 3"),
        (tree((1, 0, "write"), (2, 0, "read")), "no tree: node 2 is below 0"),
        (tree((1, 2, "write"), (2, 1, "read")), "no tree: node 1 is below 2"),
        ('{"nodes": ' + "[" * 30_000 + "]" * 30_000 + "}", "not one JSON object"),
    ],
)
def test_read_nodes_refuses_what_is_no_tree(text, told):
    found = read_nodes(text, 200)
    assert found.reason == "unparseable"
    assert re.search(told, found.error)


def test_read_nodes_refuses_a_tree_that_ran_away():
    chain = tree(*((n, n - 1, "a") for n in range(1, 5)))
    assert read_nodes(chain, 4) == 4
    assert read_nodes(chain, 3).reason == "out_of_range"


@given(st.text() | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["score", "nodes", "id", "parent", "node"]), inner
    ),
).map(json.dumps))  # fmt: skip
def test_whatever_a_judge_writes_nothing_raises(text):
    score, nodes = read_score(text, TEN), read_nodes(text, 5)
    assert isinstance(score, Unread) or score in TEN.values
    assert isinstance(nodes, Unread) or 1 <= nodes <= 5
