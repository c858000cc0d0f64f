"""The identity of samples and queries: golden ids, normalisation, properties."""

import hashlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsieve.records import ROLES, normalize_text, query_id, query_ids, sample_id

# PropList.txt of Unicode 15.0, White_Space.
WHITE_SPACE = [
    *range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
    0x205F, 0x3000,
]  # fmt: skip
NOT_WHITE_SPACE = [0x1C, 0x1D, 0x1E, 0x1F, 0x180E, 0x200B, 0x2060, 0xFEFF]

CONVERSATIONS = st.lists(
    st.tuples(st.sampled_from(ROLES), st.text(max_size=20)), min_size=1, max_size=4
)
PADDING = st.text(st.sampled_from([chr(code) for code in WHITE_SPACE]), max_size=3)


@pytest.mark.parametrize(
    ("turns", "canonical", "golden"),
    [
        (
            [("user", "Hi"), ("assistant", "Yo")],
            '[["user","Hi"],["assistant","Yo"]]',
            "6ca7cf5dbc2d42fe1db75598540df83a",
        ),
        (
            [
                ("system", " Be\n\tbrief. "),
                ("user", "cafe\u0301\u3000你好"),
                ("assistant", 'say "yes"\\no'),
                ("tool", "\u00a0"),
            ],
            '[["system","Be brief."],["user","caf\u00e9 你好"],'
            '["assistant","say \\"yes\\"\\\\no"],["tool",""]]',
            "8561c1aedd5714a0fd4fb31b8dc5b14e",
        ),
        ([], "[]", "4f53cda18c2baa0c0354bb5f9a3ecbe5"),
    ],
)
def test_sample_id_of_known_turns_is_golden(turns, canonical, golden):
    assert hashlib.sha256(canonical.encode()).hexdigest()[:32] == golden
    assert sample_id(turns) == golden


def test_query_id_of_a_known_query_is_golden():
    assert query_id(" Hi\n") == "8b1450277179b15b70831cee0e0ec563"
    assert query_id("Hi") == sample_id([("user", "Hi")])


def test_query_ids_of_a_conversation_are_those_of_its_human_turns():
    turns = [("system", "s"), ("user", "b"), ("assistant", "x"), ("user", "a"), ("user", "b")]
    assert query_ids(turns) == [query_id("b"), query_id("a"), query_id("b")]


@pytest.mark.parametrize("code", WHITE_SPACE, ids=hex)
def test_normalize_text_white_space_becomes_one_space(code):
    sign = chr(code)
    assert normalize_text(f"{sign}a{sign}{sign}b{sign}") == "a b"


@pytest.mark.parametrize("code", NOT_WHITE_SPACE, ids=hex)
def test_normalize_text_other_invisible_signs_stay(code):
    sign = chr(code)
    assert normalize_text(f"{sign}a{sign}{sign}b{sign}") == f"{sign}a{sign}{sign}b{sign}"
    assert query_id(f"a{sign}b") != query_id("a b")


def test_sample_id_keeps_case_punctuation_and_compatibility_forms_apart():
    texts = ["file", "File", "\ufb01le", "file.", "f ile", ""]
    assert len({query_id(text) for text in texts}) == len(texts)


def test_sample_id_of_surrogates_does_not_raise():
    assert query_id("a\ud800b") == "b940c81a3fc8b5070ad486a56cef3668"
    assert len(sample_id([("user", "\udfff"), ("assistant", "\ud83d")])) == 32


@given(CONVERSATIONS, PADDING, PADDING)
def test_sample_id_ignores_composition_and_surrounding_white_space(turns, before, after):
    padded = [
        (role, before + unicodedata.normalize("NFD", content) + after) for role, content in turns
    ]
    assert sample_id(padded) == sample_id(turns)


@given(CONVERSATIONS)
def test_sample_id_is_32_hex_digits(turns):
    assert len(sample_id(turns)) == 32
    assert set(sample_id(turns)) <= set("0123456789abcdef")


@given(CONVERSATIONS, st.data())
def test_sample_id_of_another_role_differs(turns, data):
    position = data.draw(st.integers(0, len(turns) - 1))
    role, content = turns[position]
    other = data.draw(st.sampled_from([name for name in ROLES if name != role]))
    changed = [*turns[:position], (other, content), *turns[position + 1 :]]
    assert sample_id(changed) != sample_id(turns)


@given(st.text(max_size=20), st.text(max_size=20))
def test_sample_id_of_another_split_into_turns_differs(first, second):
    whole = sample_id([("user", first + second)])
    assert sample_id([("user", first), ("user", second)]) != whole
    assert sample_id([("user", first + '"],["user","' + second)]) != sample_id(
        [("user", first), ("user", second)]
    )


@given(st.text(max_size=30))
def test_normalize_text_twice_changes_nothing_more(text):
    once = normalize_text(text)
    assert normalize_text(once) == once
