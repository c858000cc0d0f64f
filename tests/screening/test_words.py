"""Words that are the same whatever the case, the punctuation and the white space."""

import pytest

from parity import screening
from tagsieve.screening.words import words

TEXTS = [
    "What's  2+2?\n\tTell me!", "WHAT IS Straße?", "¿Dónde está la niña?", "e\u0301te\u0301 ÉTÉ",
    "请写一首关于春天的诗。", "Python 3.11で日本語ガガ", "ภาษาไทยไม่มีช่องว่าง", "हिन्दी में लिखो",
    "snake_case and-dash", "İstanbul", "", "?!... ---", "naïve café №5 ²", "😀 smile 😀",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_words_equal_those_taken_sign_by_sign(text):
    assert words(text) == screening.words(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of France?", "what IS the... capital of -- FRANCE"),
        ("e\u0301te\u0301", "Été!"),
        ("请写一首诗", "请，写一首诗。"),
        ("straße", "STRASSE"),
    ],
)
def test_words_do_not_depend_on_case_punctuation_and_form(one, other):
    assert words(one) == words(other) != []


def test_words_of_scripts_without_spaces_are_single_letters():
    assert words("写诗 now") == ["写", "诗", "now"]
