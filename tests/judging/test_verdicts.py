"""Judges' answers: real ones with the verdicts that their authors recorded, and generated ones."""

import gzip
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagsieve.engines.llm.verdicts import Scale, Unread
from tagsieve.judging.verdicts import read_pair, read_skills, read_winner, read_wrong

TEN = Scale(0, 10)


@pytest.fixture(scope="module")
def reviews():
    from conftest import SHARED_DATA

    path = SHARED_DATA / "judge" / "judge_texts.jsonl.gz"
    if not path.exists():
        pytest.skip("the shared data folder beside the checkout is not there")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_real_score_pairs_are_read_right_or_not_at_all(reviews):
    read = Counter()
    for row in reviews:
        if row["kind"] == "score_pair":
            found = read_pair(row["text"], TEN)
            unread = isinstance(found, Unread)
            assert unread or found == tuple(row["as_shown"]), row["ref"]
            read["unread" if unread else row["form"]] += 1
    assert read.total() == 192
    assert read["first line"] == 118
    assert read["unread"] == 3


def test_real_winners_are_read_right_or_not_at_all(reviews):
    read = Counter()
    for row in reviews:
        if row["kind"] == "score_pair":
            continue
        found = read_winner(row["text"])
        shown = {"tie": "tie", 3: "tie", 1: "A", 2: "B"}
        if row["kind"] == "abc_verdict":
            shown |= dict(zip(row["order"].split(","), "AB", strict=True))
        wanted = shown.get(row["recorded"])
        assert isinstance(found, Unread) or found == wanted, row["ref"]
        read[row["kind"], isinstance(found, Unread), wanted is None] += 1
    assert sum(n for (_, unread, failed), n in read.items() if unread and not failed) <= 3
    assert sum(n for (_, unread, _), n in read.items() if not unread) >= 25


SCORE = st.integers(0, 20).map(lambda half: half / 2)
WORDS = st.sampled_from(
    [
        "",
        "Both answers are helpful.",
        "Answer one cites 3 sources, the other 12.",
        "In 2019, x = 4.",
    ]
)
FORMS = [
    "{a:g} {b:g}",
    "{a:g}, {b:g}",
    "({a:g}, {b:g})",
    "**{a:g} {b:g}**",
    "{a:g}/10 {b:g}/10",
    "{a:g} out of 10 and {b:g} out of 10",
    "Assistant 1: {a:g}\nAssistant 2: {b:g}",
    "Assistant 1: {a:g} (clear)\n**Assistant 2**: {b:g} (vague)",
    "Assistant A: {a:g}/10\nAssistant B: {b:g}/10",
    "Score: Assistant 2: {b:g}\nAssistant 1: {a:g}",
    "I give Assistant 1 a score of {a:g} and Assistant 2 a score of {b:g}.",
    '{{"first": {a:g}, "second": {b:g}}}',
    '```json\n{{"scores": [{a:g}, {b:g}]}}\n```',
    "<think>First 3, then 9 8.</think>\n{a:g} {b:g}",
    "Scores: ({a:g}, {b:g})",
]


@settings(max_examples=1500, deadline=None)
@given(SCORE, SCORE, st.sampled_from(FORMS), WORDS, WORDS)
def test_generated_score_pairs_are_read_right(a, b, form, before, after):
    told = form.format(a=a, b=b)
    thought = told.startswith("<think>")
    text = "\n".join(part for part in ("" if thought else before, told, after) if part)
    assert read_pair(text, TEN) == (a, b)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from("ABC"), WORDS, WORDS, st.sampled_from(["[[{}]]", '{{"winner": "{}"}}']))
def test_generated_winners_are_read_right(mark, before, after, form):
    found = read_winner(f"{before}\n{form.format(mark)}\n{after}")
    assert found == {"A": "A", "B": "B", "C": "tie"}[mark]


PIECES = [
    "Assistant 1: ", "Assistant 2: ", "[[A]]", "[[", "{", "}", '"first": ', "9", "-1", "(", ")",
    ", ", "\n", "/10", "score of ", "[" * 3000, "1e999", "nan", "\ud800",
    '{"first": 1' + "0" * 400 + ', "second": 2}', '{"first": 1' + "0" * 400 + "}",
]  # fmt: skip


@settings(max_examples=1000, deadline=None)
@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_no_text_raises_and_no_score_is_out_of_range(text):
    found = read_pair(text, TEN)
    assert isinstance(found, Unread) or all(0 <= score <= 10 for score in found)
    assert read_winner(text) in ("A", "B", "tie") or isinstance(read_winner(text), Unread)
    marks = read_wrong(text, 4)
    assert isinstance(marks, Unread) or set(marks) <= {0.0, 1.0}
    assert len(marks) == 4 if isinstance(marks, list) else marks.reason
    found = read_skills(text, ["first"], TEN)
    assert isinstance(found, Unread) or 0 <= found[0] <= 10


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unparseable"),
        ("8", "unparseable"),
        ("Assistant 1: 8", "unparseable"),
        ("8 9 7", "unparseable"),
        ("85/100 90/100", "unparseable"),
        ("11 9", "out_of_range"),
        ("-1 9", "out_of_range"),
        ("They differ.\n(8, 9)\nOn second thought:\n(9, 8)", "contradictory"),
        ("x" * 64_001 + "\n8 9", "unparseable"),
        ('{"first": 1' + "0" * 400 + ', "second": 2}', "out_of_range"),  # no float is as large
    ],
)
def test_what_says_no_two_scores_says_why(text, reason):
    found = read_pair(text, TEN)
    assert isinstance(found, Unread)
    assert found.reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A is better", "unparseable"),
        ("[[A]] or rather [[B]]", "contradictory"),
        ("4", "unparseable"),
    ],
)
def test_what_says_no_winner_says_why(text, reason):
    found = read_winner(text)
    assert isinstance(found, Unread)
    assert found.reason == reason


@settings(max_examples=500, deadline=None)
@given(
    st.sets(st.integers(1, 9)),
    WORDS,
    st.sampled_from(['{{"wrong": {}}}', '```json\n{{"wrong": {}}}\n```', "{}", "```\n{}\n```"]),
)
def test_generated_lists_of_what_is_wrong_are_read_right(wrong, after, form):
    told = form.format(sorted(wrong))
    text = f"{told}\n{after}" if "wrong" in form else told
    expected = [float(number not in wrong) for number in range(1, 10)]
    assert read_wrong(text, 9) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Tags 1 and 2 are wrong.", "unparseable"),
        ('{"wrong": "1"}', "unparseable"),
        ('{"wrong": [1.5]}', "unparseable"),
        ('{"wrong": [true]}', "unparseable"),
        ('{"wrong": ["poetry"]}', "unparseable"),
        ('{"wrong": [0]}', "out_of_range"),
        ("[4]", "out_of_range"),
        ('{"wrong": []} or rather [1]', "unparseable"),
    ],
)
def test_what_is_no_list_of_numbers_says_why(text, reason):
    found = read_wrong(text, 3)
    assert isinstance(found, Unread)
    assert found.reason == reason


@settings(max_examples=500, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["Logic", "Facts", "Readability"]), SCORE, min_size=1),
    st.booleans(),
    WORDS,
)
def test_generated_scores_of_skills_are_read_right(scores, listed, before):
    told = [{"skill": name.upper(), "score": score} for name, score in scores.items()]
    text = json.dumps({"scores": told if listed else scores})
    assert read_skills(f"{before} {text}", list(scores), TEN) == list(scores.values())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Logic: 4", "unparseable"),
        ('{"scores": [{"skill": "Logic", "score": "4"}]}', "unparseable"),
        ('{"scores": [{"skill": "Logic", "score": 4}]}', "incomplete"),
        ('{"Logic": 4, "Facts": 11}', "out_of_range"),
        ('{"Logic": 4, "Facts": 3.2}', "off_scale"),
        ('{"Logic": 4, "Facts": 1' + "0" * 400 + "}", "out_of_range"),
        ('{"scores": [{"skill": "Facts", "score": 4}, {"skill": "facts", "score": 3}]}',
         "contradictory"),
    ],
)  # fmt: skip
def test_what_lacks_a_skill_says_why(text, reason):
    found = read_skills(text, ["Logic", "Facts"], TEN)
    assert isinstance(found, Unread)
    assert found.reason == reason
