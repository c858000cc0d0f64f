"""What models write when asked for tags: each way they stray, and whatever else may come."""

import gzip
import json
import random
import re
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tagsieve.tagging.replies import (
    ITEMS_DROPPED,
    LONGEST,
    LONGEST_REPAIRED,
    LONGEST_TAG,
    OUTPUT_CUT,
    REPAIRED,
    parse_tags,
)

SQL = '{"tag": "SQL query", "explanation": "asks for SQL"}'
JOINS = '{"tag": "joins", "explanation": "two tables"}'
LIST = f"[{SQL}, {JOINS}]"
BOTH = [("SQL query", "asks for SQL"), ("joins", "two tables")]
FIRST = BOTH[:1]
NAMES = [("sql", ""), ("joins", "")]
EXPLAINED = ("sql", "x")
CUT = [REPAIRED, OUTPUT_CUT]


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        (LIST, BOTH),
        (json.dumps(json.loads(LIST), indent=2), BOTH),
        (f"\n  {LIST}\n", BOTH),
        (f"\ufeff{LIST}", BOTH),
        (SQL, FIRST),
        ("[]", []),
        ('{"tags": []}', []),
        (f"[[{SQL}, {JOINS}]]", BOTH),
        (f'{{"tags": {LIST}}}', BOTH),
        (f'{{"Tags": {LIST}}}', BOTH),
        (f'{{"data": {{"query_tags": {LIST}}}}}', BOTH),
        ('["sql", "joins"]', NAMES),
        ('{"tags": ["sql", "joins"]}', NAMES),
        ('[{"Tag": "sql", " Explanation": "x"}]', [EXPLAINED]),
        ('[{"explanation": "x", "tag": "sql"}]', [EXPLAINED]),
        ('[{"name": "sql", "explanation": "x"}]', [EXPLAINED]),
        ('[{"tag": "sql"}, {"tag": "joins", "explanation": null}]', NAMES),
        # Keys of one object come again: two items, none overwritten.
        ('{"tag": "sql", "explanation": "x", "tag": "joins"}', [("sql", "x"), ("joins", "")]),
        (f"```json\n{LIST}\n```", BOTH),
        (f"```\n{LIST}\n```", BOTH),
        (f"```json {LIST}```", BOTH),
        (f"```json\n{LIST}", BOTH),
        (f"Here are the tags:\n```json\n{LIST}\n```\nI hope this helps!", BOTH),
        (f"<think>[sic] {{no}}</think>\n{LIST}", BOTH),
        (f'<think>[{{"tag": "no", "explanation": "x"}}]? No.</think>{LIST}', BOTH),
        ('[{"tag": "html </think>", "explanation": ""}]', [("html </think>", "")]),
        # Each tag once, with its first explanation.
        ('[{"tag": "SQL", "explanation": "a"}, {"tag": "sql"}]', [("SQL", "a")]),
        ('["Straße", "STRASSE"]', [("Straße", "")]),
        (f"[{', '.join([SQL] * 200)}]", FIRST),
        ('[" \\"SQL\\n query\\" "]', [("SQL query", "")]),
        ('["C++", "C#", ".NET", "A*"]', [("C++", ""), ("C#", ""), (".NET", ""), ("A*", "")]),
        ('["数据库查询", "запрос"]', [("数据库查询", ""), ("запрос", "")]),
        ('["استعلام", "डेटाबेस"]', [("استعلام", ""), ("डेटाबेस", "")]),
        # Joiners are letters of Persian; an invisible mark is none of a tag.
        ('["می\u200cخواهم", "sq\u200bl"]', [("می\u200cخواهم", ""), ("sql", "")]),
        ('["cafe\u0301"]', [("caf\u00e9", "")]),
        ('["sql \\ud83d", "joins\\u0000"]', NAMES),
        ('["sql \ud83d", "joins"]', NAMES),
        ('["\\ud83d\\ude00 mood"]', [("\U0001f600 mood", "")]),
    ],
)  # fmt: skip
def test_answer_that_is_json_of_tags_gives_them_without_flags(answer, tags):
    parsed = parse_tags(answer)
    assert (parsed.tags, parsed.flags, parsed.error) == (tags, [], None)


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        # Words around.
        (f"Here are the tags: {LIST} Let me know if you need more!", BOTH),
        (f"I [as an AI] find {{two}}: {LIST}\n\nThese [tags] cover {{it}}.", BOTH),
        (f'Here\'s what I\'d say of the 5" disk: {LIST} That\'s "it".', BOTH),
        (f"Tags: {LIST}", BOTH),
        (f"**Tags:**\n\n{LIST}", BOTH),
        (f"<answer>{LIST}</answer>", BOTH),
        (f"{LIST}<|im_end|>", BOTH),
        (f"~~~json\n{LIST}\n~~~", BOTH),
        (f"```python\nprint(1)\n```\n```json\n{LIST}\n```", BOTH),
        (f"```json\n{SQL}\n```\n```json\n{JOINS}\n```", BOTH),
        (f"{SQL}\n```json\n{JOINS}\n```", BOTH),
        ('Tags: ["sql", "joins"]', NAMES),
        ('The tags are ["sql", "joins"].', NAMES),
        ("Tags: []", []),
        ('["sql", "joins"] are the tags.', NAMES),
        # Brackets and commas.
        (f"[{SQL}, {JOINS},]", BOTH),
        ('[{"tag": "sql", "explanation": "x",}, {"tag": "joins",},]', [EXPLAINED, NAMES[1]]),
        (f"[{SQL} {JOINS}]", BOTH),
        (f"{SQL}\n{JOINS}", BOTH),
        (f"{SQL},\n{JOINS}", BOTH),
        (f"{LIST}]", BOTH),
        (f"{LIST[1:]}", BOTH),
        (f"[{SQL}][{JOINS}]", BOTH),
        (f"[{SQL}], [{JOINS}]", BOTH),
        (f"[{SQL}, ...]", FIRST),
        (f"[{SQL[:-1]}, {JOINS}]", BOTH),
        (f"[{SQL}, {JOINS[1:]}]", BOTH),
        (f"[{SQL[1:]}, {JOINS}]", BOTH),
        (f"1. {SQL}\n2. {JOINS}", BOTH),
        ('[{"tag" "sql", "explanation" "x"}]', [EXPLAINED]),
        ('[{"tag": "sql" "explanation": "x"}]', [EXPLAINED]),
        (LIST.replace('", ', '"\\n, ').replace("[", "[\\n"), BOTH),
        # Quotation marks.
        (str(json.loads(LIST)), BOTH),
        ("['sql', 'joins']", NAMES),
        ("['explanation', 'tag']", [("explanation", ""), ("tag", "")]),
        ("[{'tag': 'sql', 'explanation': None, 'sure': True}]", [("sql", "")]),
        ("[{'tag': 'sql', 'explanation': \"the user's table\"}]", [("sql", "the user's table")]),
        ('[{tag: "sql", explanation: "x"}, {tag: "joins"}]', [EXPLAINED, NAMES[1]]),
        ("[{tag: sql, explanation: x}, {tag: joins, explanation: y}]", [EXPLAINED, ("joins", "y")]),
        ("[{“tag”: “sql”, “explanation”: “x”}, {“tag”: “joins”}]", [EXPLAINED, NAMES[1]]),
        ("[{'tag': 'user's table', 'explanation': 'x'}]", [("user's table", "x")]),
        ('[{"tag": "sql", "explanation": "has "a" and "b""}]', [("sql", 'has "a" and "b"')]),
        ('[{"tag": "sql", "explanation": "a "b", then more"}]', [("sql", 'a "b", then more')]),
        (json.dumps(LIST), BOTH),
        (LIST.replace('"', '\\"'), BOTH),
        # Signs that strict JSON does not allow.
        ('[\n// one\n{"tag": "sql"}, # two\n{"tag": "joins"} /* end */\n]', NAMES),
        ('[{"tag": "sql", "explanation": "one\ntwo"}]', [("sql", "one two")]),
        ('[{"tag": "s\x00ql", "explanation": "x"}]', [("s ql", "x")]),
        # Plain lists.
        ("1. sql\n2. joins", NAMES),
        ("1. **SQL query**: asks for SQL\n2. **joins** - two tables", BOTH),
        ("1) SQL query - asks for SQL\n\n2) joins: two tables", BOTH),
        ("* `sql`\n* `joins`", NAMES),
        ("• sql\n• joins", NAMES),
        ("Here are the tags:\n\n- sql\n- joins", NAMES),
        ("**Tags:**\n- sql\n- joins\n\nI hope this helps!", NAMES),
        ("1、数据库查询：询问\n2、连接", [("数据库查询", "询问"), ("连接", "")]),
    ],
)  # fmt: skip
def test_answer_that_strays_from_json_is_repaired_and_flagged(answer, tags):
    parsed = parse_tags(answer)
    assert (parsed.tags, parsed.flags, parsed.error) == (tags, [REPAIRED], None)


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        (LIST[:-1], BOTH),
        (f"[{SQL},", FIRST),
        (f"[{SQL}, {{", FIRST),
        (f'[{SQL}, {{"tag": "jo', FIRST),
        (f'[{SQL}, {{"tag": "joins", "explanation": "see {{x}}', FIRST),
        (f'[{SQL}, {{"tag": "joins", "explanation": "see \\"}}', FIRST),
        (f'{{"tags": [{SQL}, {{"tag": "jo', FIRST),
        (f'{{"tags": {LIST}', BOTH),
        (f'```json\n[{SQL}, {{"tag": "jo', FIRST),
        (f'The 5" disk: [{SQL}, {{"tag": "jo', FIRST),
        ("[{'tag': 'SQL query', 'explanation': 'asks for SQL'}, {'tag': 'jo", FIRST),
        ('["sql", "joins", "ta', NAMES),
        ('["sql", "joins"', NAMES),
        ('{"tags": ["sql", "joins", "', NAMES),
        ("['sql', 'joins', 'ta", NAMES),
    ],
)  # fmt: skip
def test_answer_that_breaks_off_keeps_complete_items_and_is_flagged(answer, tags):
    parsed = parse_tags(answer)
    assert (parsed.tags, parsed.flags, parsed.error) == (tags, CUT, None)


@pytest.mark.parametrize(
    ("answer", "tags", "flags"),
    [
        (LIST, BOTH, [OUTPUT_CUT]),
        (f"{LIST}\n\nThese tags", BOTH, CUT),
        ("1. sql\n2. joins\n3. tab", NAMES, CUT),
        ("Tags:\n- sql\n- joins: two tab", NAMES[:1], CUT),
    ],
)
def test_answer_cut_at_the_limit_of_tokens_loses_no_closed_item(answer, tags, flags):
    parsed = parse_tags(answer, cut=True)
    assert (parsed.tags, parsed.flags, parsed.error) == (tags, flags, None)


@pytest.mark.parametrize(
    "item",
    [
        '{"tag": "", "explanation": "x"}',
        '{"tag": "?!", "explanation": "x"}',
        '{"tag": null, "explanation": "x"}',
        '{"tag": 7}',
        '{"tag": ["sql"]}',
        '{"tag": "The user wants to know about joins."}',
        '{"tag": "a tag of more than ten words is a sentence without end"}',
        '{"tag": "用户想知道法国的首都是什么。"}',
        '{"tag": "用户想知道法国的首都是什么并且想知道它有多少人口以及如何从伦敦乘坐火车前往那里"}',
        f'{{"tag": "{"x" * (LONGEST_TAG + 1)}"}}',
        '{"tag": "str", "explanation": "str"}',
        '{"note": "none"}',
        '"joins"',
        "1",
    ],
)
def test_item_that_is_no_tag_is_dropped_and_flagged(item):
    parsed = parse_tags(f"[{SQL}, {item}]")
    assert (parsed.tags, parsed.flags, parsed.error) == (FIRST, [ITEMS_DROPPED], None)
    assert parse_tags(f"[{item}, {item}]").error is not None or item == '"joins"'


@pytest.mark.parametrize(
    "item",
    [
        '{"tagg": "joins", "explanation": "two tables"}',
        '{"tag": "joins", "explanation": "two", "tag": "tables",}',
        '{"tag": "inner"joins", "explanation"} "two"}',
        f'{{"tag": "joins", "explanation": "{"x" * LONGEST_REPAIRED}",}}',
    ],
)
def test_item_that_no_repair_can_read_is_flagged(item):
    parsed = parse_tags(f"[{SQL}, {item},]")
    assert parsed.tags[:1] == FIRST
    assert parsed.flags == [REPAIRED, ITEMS_DROPPED]


@pytest.mark.parametrize(
    "answer",
    [
        # Nothing, or no list.
        "",
        " \n",
        "\ufeff",
        "\x00",
        "null",
        "7",
        '"sql"',
        "{}",
        "NaN",
        # Prose: a refusal, an answer to the query, words around nothing.
        "I'm sorry, but I can't help with that.",
        "I cannot tag this: it asks for something harmful.",
        "The capital of France is Paris.",
        "Tags: sql, joins",
        "#sql #joins",
        "Final verdict: [[A]]",
        "[[A]]",
        "[Your answer here]",
        "Tag: sql\nExplanation: asks for SQL",
        "- Tag: sql\n- Tag: joins",
        "1. Open the file.\n2. Read the lines in it.\n3. Close it.",
        "Here are three fruits:\n1. Apple\n2. Pear\n3. Plum",
        "- sql\n- joins\nand that was it",
        "<think>Perhaps [{\"tag\": \"sql\", \"explanation\": \"x\"}] but",
        # Code, markup and lists in an answer to the query.
        'Use ["a", "b"] in your code.',
        "Use row['key'] and row[\"name\"].",
        "```python\ndef add(a, b):\n    return {'sum': a + b}\n```",
        '```python\nx = ["red", "green"]\n```',
        '```python\n["red", "green"]\n```',
        "int main() { return 0; }",
        'const x = {name: "Ann"};',
        "body {color: red}",
        r"\frac{1}{2}",
        "<html><body><h1>502 Bad Gateway</h1></body></html>",
        "<ul><li>sql</li><li>joins</li></ul>",
        "| tag | explanation |\n|---|---|\n| sql | asks |",
        # JSON that is no tags.
        '{"error": "rate limit"}',
        '{"name": "Ann", "age": 3}',
        '{"name": "Ann", "description": "an engineer"}',
        '{"items": ["milk", "eggs"]}',
        '{"tags": "sql, joins"}',
        '{"SQL query": "asks for SQL"}',
        '["red", 1]',
        "[1, 2]",
        "[null]",
        '[["sql", "x"], ["joins", "y"]]',
        '{"tags": [{"value": "sql", "others": ["x"]}]}',
        '{"tags": [{"value": "sql", "others": []}]}',
        f"[{{tag: {'[' * 900}{']' * 900}}}]",
        '["???", "-"]',
        # The format of the prompt, and its cut beginning.
        '[{"tag": str, "explanation": str}]',
        '[{"tag": "...", "explanation": "..."}]',
        "[",
        "[{",
        '[{"tag',
        '[{"tag": "SQL qu',
        '{"tag": "sql", "explanation": "asks for',
        '["sq',
        # Marks that are not escaped, so where a text ends would be a guess.
        '["it"s a", "b"]',
    ],
)  # fmt: skip
def test_answer_without_a_list_of_tags_is_an_error(answer):
    parsed = parse_tags(answer)
    assert parsed.error is not None
    assert (parsed.tags, parsed.flags) == ([], [])


def test_answer_with_more_tags_than_allowed_is_an_error():
    answer = json.dumps([{"tag": f"tag {n}"} for n in range(51)])
    assert parse_tags(answer).error == "51 tags in one answer"
    assert len(parse_tags(answer, max_tags=51).tags) == 51


def test_answer_longer_than_any_list_is_cut():
    looping = f"[{SQL}, {JOINS}, " + '{"tag": "loop"}, ' * LONGEST
    parsed = parse_tags(looping)
    assert (parsed.tags, parsed.flags) == ([*BOTH, ("loop", "")], CUT)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit",
    ["[", "{", '"', "\\", "'", "```", "[{", '[{"', '["', '{"a":', '{"tag":', '{"tag": "',
     "{'tag': '", '{"tag": "a" "', '{"tag": "a"', '{"tag": "a}, ', "[{tag: ", "1. ", "- a\n", "}",
     "- a" + " " * 60_000 + ":"],
)  # fmt: skip
def test_answer_that_repeats_itself_is_read_in_seconds(unit):
    parsed = parse_tags(unit * (LONGEST // len(unit)))
    assert parsed.error is not None or parsed.tags


# Whatever comes: properties.

ANY_TEXT = st.text(st.characters(exclude_categories=[]))
PIECES = [*"[]{}\"'`:,\\ \n-1.“”：<>/", "tag", '"tag": ', "explanation", "sql", "```json", "Tags:"]
JSON_LIKE = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["tag", "tags", "name", "explanation"]) | st.text(), inner
        )
    ),
)
TAGS = (
    st.from_regex(r"[a-zA-Zéж数ब][a-z0-9+#é 数{}\[\],:'-]{0,20}[a-z0-9+#éж数]", fullmatch=True)
    .map(lambda tag: " ".join(tag.split()))
    .filter(lambda tag: len(tag.split()) <= 10)
)
WORDS = [*"ab\"'{}[]:,\\ 数.`", '{"tag": "x"}', "{'tag': 'x'}", "{tag: x}", "```", "'}"]
EXPLANATIONS = st.lists(st.sampled_from(WORDS), max_size=20).map(
    lambda words: " ".join("".join(words).split())
)
VALID = st.lists(
    st.tuples(TAGS, EXPLANATIONS), min_size=1, max_size=5, unique_by=lambda pair: pair[0].casefold()
)


def as_json(pairs, **options):
    return json.dumps([{"tag": tag, "explanation": why} for tag, why in pairs], **options)


def check_contract(answer, cut=False):
    """Nothing raises; tags or an error; each tag is one, once, and can be stored."""
    parsed = parse_tags(answer, cut)
    if parsed.error is not None:
        assert (parsed.tags, parsed.flags) == ([], [])
    for tag, why in parsed.tags:
        assert any(sign.isalnum() for sign in tag)
        assert tag == tag.strip()
        assert len(tag) <= LONGEST_TAG
        (tag + why).encode("utf-8")
    assert len({tag.casefold() for tag, _ in parsed.tags}) == len(parsed.tags)
    return parsed


@settings(deadline=None)
@given(st.one_of(ANY_TEXT, JSON_LIKE), st.booleans())
@example("\ud800[{\"tag\": \"\udfff\"}]", False)  # fmt: skip
def test_parse_of_any_text_keeps_the_contract(text, cut):
    check_contract(text, cut)


@settings(deadline=None)
@given(st.binary())
def test_parse_of_bytes_that_are_no_text_keeps_the_contract(raw):
    check_contract(raw.decode("utf-8", "surrogateescape"))


@settings(deadline=None)
@given(VALUES)
def test_parse_of_any_json_keeps_the_contract(value):
    check_contract(json.dumps(value))


@settings(deadline=None)
@given(VALID, st.data())
def test_parse_of_a_damaged_answer_keeps_the_contract(pairs, data):
    signs = list(as_json(pairs, ensure_ascii=False))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(signs) - 1))
        other = data.draw(st.integers(0, len(signs) - 1))
        change = data.draw(st.sampled_from(["delete", "insert", "swap"]))
        if change == "delete" and len(signs) > 1:
            del signs[place]
        elif change == "insert":
            signs.insert(place, data.draw(st.sampled_from("\"'{}[],:\\a\n“")))
        else:
            signs[place], signs[other] = signs[other], signs[place]
    check_contract("".join(signs))


@settings(deadline=None)
@given(VALID, st.sampled_from([None, 2]), st.booleans())
def test_parse_of_json_gives_exactly_its_tags(pairs, indent, ascii_only):
    parsed = check_contract(as_json(pairs, indent=indent, ensure_ascii=ascii_only))
    assert (parsed.tags, parsed.flags) == (pairs, [])


@settings(deadline=None)
@given(VALID, st.sampled_from(["{}", '{{"tags": {}}}', "Sure: {}", "```json\n{}"]), st.data())
@example([("a1", '{"tag": "b1"}'), ("c1", "{'tag': 'd1'}")], "{}", None)
def test_parse_of_json_cut_anywhere_gives_its_complete_items(pairs, form, data):
    whole = form.format(as_json(pairs))
    ends = [whole.index(item) + len(item) for item in map(as_item, pairs)]
    first = whole.index("[")
    places = range(first, len(whole))
    for place in places if data is None else [data.draw(st.sampled_from(places))]:
        parsed = check_contract(whole[:place])
        complete = [pair for pair, end in zip(pairs, ends, strict=True) if end <= place]
        assert parsed.tags == complete
        assert OUTPUT_CUT in parsed.flags or parsed.error is not None


def as_item(pair):
    return json.dumps({"tag": pair[0], "explanation": pair[1]})


@settings(deadline=None)
@given(st.lists(TAGS, min_size=1, max_size=5, unique_by=str.casefold), st.data())
def test_parse_of_a_list_of_texts_cut_anywhere_gives_its_complete_texts(names, data):
    whole = json.dumps(names)
    place = data.draw(st.integers(1, len(whole) - 1))
    parsed = check_contract(whole[:place])
    complete = [n for n in range(1, len(names) + 1) if len(json.dumps(names[:n])) - 1 <= place]
    assert [tag for tag, _ in parsed.tags] == names[: len(complete)]
    assert OUTPUT_CUT in parsed.flags or parsed.error is not None


# What was recorded, damaged in known ways.


def in_prose(pairs, rng):
    before = rng.choice(
        ["Sure! Here are the tags:", "I'd say", 'The "tags" [for you]:', "**Tags**"]
    )
    after = rng.choice(
        ["", "Hope this helps!", "These [tags] cover {it}.", 'That\'s "it".', "</s>"]
    )
    return f"{before}\n{as_json(pairs)}\n\n{after}"


def fenced(pairs, rng):
    inside = as_json(pairs, indent=rng.choice([None, 2]))
    return rng.choice(["", "Here you go:\n\n"]) + f"```{rng.choice(['', 'json'])}\n{inside}\n```"


def thoughtful(pairs, rng):
    return f"<think>\nThe user [wants] tags.\n</think>\n\n{as_json(pairs)}"


def trailing_commas(pairs, rng):
    items = ",\n".join(as_item(pair)[:-1] + ",}" for pair in pairs)
    return f"[{items},]"


def without_commas(pairs, rng):
    return "[" + rng.choice([" ", "\n", ""]).join(map(as_item, pairs)) + "]"


def one_a_line(pairs, rng):
    return rng.choice(["\n", ",\n", "\n\n"]).join(map(as_item, pairs))


def numbered_json(pairs, rng):
    return "\n".join(f"{n}. {as_item(pair)}" for n, pair in enumerate(pairs, 1))


def python_repr(pairs, rng):
    return repr([{"tag": tag, "explanation": why} for tag, why in pairs])


def without_key_marks(pairs, rng):
    return re.sub(r'"(tag|explanation)": ', r"\1: ", as_json(pairs))


def upper_keys(pairs, rng):
    return re.sub(r'"(tag|explanation)": ', lambda key: key[0].title(), as_json(pairs))


def escaped(pairs, rng):
    return rng.choice([json.dumps(as_json(pairs)), json.dumps(as_json(pairs))[1:-1]])


def wrapped(pairs, rng):
    return f'{{"{rng.choice(["tags", "intentions", "result"])}": {as_json(pairs)}}}'


def several_lists(pairs, rng):
    place = rng.randrange(1, len(pairs))
    return as_json(pairs[:place]) + rng.choice(["\n", ", "]) + as_json(pairs[place:])


def without_opening(pairs, rng):
    return as_json(pairs)[1:]


def without_closing(pairs, rng):
    return as_json(pairs)[:-1]


def without_a_brace(pairs, rng):
    items = [as_item(pair) for pair in pairs]
    place = rng.randrange(len(items) - 1)
    items[place] = items[place][:-1]
    return f"[{', '.join(items)}]"


def without_a_comma_inside(pairs, rng):
    return as_json(pairs).replace('", "explanation"', '" "explanation"')


def commented(pairs, rng):
    mark = rng.choice(["//", "#"])
    return "[\n" + "".join(f"{as_item(pair)}, {mark} tag\n" for pair in pairs) + "]"


LOSSLESS = [
    in_prose, fenced, thoughtful, trailing_commas, without_commas, one_a_line, numbered_json,
    python_repr, without_key_marks, upper_keys, escaped, wrapped, several_lists, without_opening,
    without_closing, without_a_brace, without_a_comma_inside, commented,
]  # fmt: skip
"""Nothing is lost: all tags and explanations come back."""


def single_marks(pairs, rng):
    """Apostrophes in explanations as they are."""
    items = [f"{{'tag': {tag!r}, 'explanation': '{why}'}}" for tag, why in pairs]
    return f"[{', '.join(items)}]"


def marks_inside(pairs, rng):
    """A word of each explanation in quotation marks that are not escaped."""
    marked = [(tag, re.sub(r"(\w+)", r'"\1"', why.replace('"', ""), count=1)) for tag, why in pairs]
    items = [f'{{"tag": {json.dumps(tag)}, "explanation": "{why}"}}' for tag, why in marked]
    return f"[{', '.join(items)}]"


def an_odd_mark_inside(pairs, rng):
    items = [f'{{"tag": {json.dumps(tag)}, "explanation": "a 5" disk"}}' for tag, _ in pairs]
    return f"[{', '.join(items)}]"


def raw_lines(pairs, rng):
    items = [f'{{"tag": {json.dumps(tag)}, "explanation": "in\nlines"}}' for tag, _ in pairs]
    return f"[{', '.join(items)}]"


def numbered(pairs, rng):
    form = rng.choice(["{}. {}", "{}) **{}**"])
    return "\n".join(form.format(n, tag) for n, (tag, _) in enumerate(pairs, 1))


def bullets(pairs, rng):
    form = rng.choice(["- {}: {}", "* **{}** - {}", "• {}: {}"])
    return "Here are the tags:\n\n" + "\n".join(form.format(tag, why) for tag, why in pairs)


def texts(pairs, rng):
    names = [tag for tag, _ in pairs]
    return rng.choice([json.dumps(names), repr(names), f"Tags: {json.dumps(names)}."])


def unquoted(pairs, rng):
    # A bare `true story` or `1984 novel` is read as true or a number, and flagged as dropped.
    names = [json.dumps(tag) if re.match(r"true|false|null|\d", tag) else tag for tag, _ in pairs]
    return "[" + ", ".join(f"{{tag: {name}, explanation: x}}" for name in names) + "]"


def with_an_echo(pairs, rng):
    return f'In the format [{{"tag": "...", "explanation": "..."}}]:\n{as_json(pairs)}'


TAGS_ONLY = [
    single_marks, marks_inside, an_odd_mark_inside, raw_lines, numbered, bullets, texts, unquoted,
    with_an_echo,
]  # fmt: skip
"""All tags come back; of an explanation a mark or a line end may be missing."""


def cut_somewhere(pairs, rng):
    """An answer that stops, and the items that are complete before the cut."""
    written = [rng.choice([as_item, python_item])(pair) for pair in pairs]
    before = rng.choice(["", "Here are the tags: ", "```json\n"]) + "["
    whole = before + rng.choice([", ", ",\n  ", "\n"]).join(written) + "]"
    place = rng.randrange(len(before), len(whole))
    ends = [whole.index(item) + len(item) for item in written]
    return whole[:place], [pair for pair, end in zip(pairs, ends, strict=True) if end <= place]


def python_item(pair):
    return repr({"tag": pair[0], "explanation": pair[1]})


def damaged(pairs, rng):
    """An answer with signs deleted, doubled or changed anywhere: what remains is not known."""
    signs = list(as_json(pairs))
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(signs))
        signs[place] = rng.choice(["", signs[place] * 2, rng.choice("\"'{}[],:\\\n")])
    return "".join(signs)


@pytest.fixture
def recorded(shared_data):
    with gzip.open(shared_data / "tags/llm_tags.jsonl.gz", "rt") as lines:
        rows = [json.loads(line)["tags"] for line in lines]
    return [[(item["tag"], item["explanation"]) for item in row] for row in rows]


@pytest.mark.timeout(120)
def test_parse_of_ten_thousand_malformed_answers_loses_none_in_silence(recorded):
    rng = random.Random(7)
    forms = [*LOSSLESS, *TAGS_ONLY, cut_somewhere, cut_somewhere, damaged, damaged]
    wrong, seen = [], Counter()
    for n in range(10_000):
        pairs, form = rng.choice(recorded), forms[n % len(forms)]
        answer = form(pairs, rng)
        expected = pairs
        if form is cut_somewhere:
            answer, expected = answer
        parsed = check_contract(answer)
        seen[form.__name__] += 1
        if form is damaged:
            # Whatever is not read is flagged, or the answer is in quarantine.
            quiet = parsed.error is None and not parsed.flags
            right = not quiet or len(parsed.tags) == len(pairs)
        elif form is cut_somewhere:
            flagged = OUTPUT_CUT in parsed.flags or parsed.error is not None
            right = parsed.tags == expected and flagged
        elif form in TAGS_ONLY:
            right = [tag for tag, _ in parsed.tags] == [tag for tag, _ in expected]
        else:
            right = parsed.tags == expected and ITEMS_DROPPED not in parsed.flags
        if not right:
            wrong.append((form.__name__, answer, parsed))
    assert sum(seen.values()) == 10_000
    assert wrong == []


def test_parse_of_recorded_answers_gives_exactly_their_tags(recorded):
    for pairs in recorded:
        parsed = parse_tags(as_json(pairs))
        assert (parsed.tags, parsed.flags) == (pairs, [])


def test_parse_of_a_judge_s_prose_gives_no_tags(shared_data):
    with gzip.open(shared_data / "judge/judge_texts.jsonl.gz", "rt") as lines:
        answers = [json.loads(line)["text"] for line in lines]
    assert len(answers) == 243
    assert [answer for answer in answers if parse_tags(answer).error is None] == []
