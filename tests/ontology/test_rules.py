"""The rule step: which tags become one, and which must never."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tagsieve.config import validate
from tagsieve.errors import UsageError
from tagsieve.ontology.config import PROTECTED, RuleConfig
from tagsieve.ontology.rules import TagRule

RULE = TagRule(RuleConfig())

TAGS = st.text(
    st.one_of(
        st.sampled_from("cCrRfF+#.-_ /netjsNETİΣẞ\u030c\u0301🙂数बि\u200d\u00a0\t"),
        st.characters(exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=12,
)
"""Any text, much of it near the protected names."""


@pytest.mark.parametrize(
    "tag",
    [
        "information retrieval",
        "Information Retrieval",
        "information_retrieval",
        "  INFORMATION--retrieval! ",
        "information retrieve",
    ],
)
def test_stem_of_information_retrieval_variants_is_one(tag):
    assert RULE.stem(tag) == "inform retriev"


@pytest.mark.parametrize(
    "tag", ["Information Retrieval", "information_retrieval", "Information/Retrieval"]
)
def test_surface_of_information_retrieval_variants_is_the_paper_s_display(tag):
    assert RULE.surface(tag) == "information retrieval"


@pytest.mark.parametrize(
    ("tag", "surface"),
    [
        ("C", "c"),
        ("C++", "c++"),
        ("c++17", "c++ 17"),
        ("C/C++", "c c++"),
        ("C#", "c#"),
        ("F#", "f#"),
        ("c# (language)", "c# language"),
        ("Objective-C", "objective-c"),
        (".NET", ".net"),
        ("ASP.NET", "asp.net"),
        ("ASP.NET Core", "asp.net core"),
        ("ADO.NET", "ado.net"),
        ("net", "net"),
        ("a.net", "a net"),
        (".network", "network"),
        ("Node.js", "node.js"),
        ("R", "r"),
        ("R-squared", "r squared"),
        ("snake_case", "snake case"),
        ("how-to", "how to"),
    ],
)
def test_surface_keeps_protected_names_whole_and_spaces_the_rest(tag, surface):
    assert RULE.surface(tag) == surface


def test_stem_of_each_protected_name_is_itself_so_that_none_merge():
    stems = {RULE.stem(name) for name in PROTECTED}
    assert stems == set(PROTECTED)
    assert {RULE.stem(name.upper()) for name in PROTECTED} == set(PROTECTED)
    apart = ["C", "C++", "C#", "Objective-C", "R", ".NET", "asp.net", "net", "NETS", "F#"]
    assert len({RULE.stem(tag) for tag in apart}) == len(apart) - 1  # net and nets
    assert RULE.stem("net") == RULE.stem("nets") != RULE.stem(".net")


@pytest.mark.parametrize(
    ("tag", "surface"),
    [
        ("信息检索", "信息检索"),
        ("机器_学习", "机器 学习"),
        ("「翻译」、校对", "翻译 校对"),
        ("معالجة_اللغة", "معالجة اللغة"),
        ("مُعَالَجَة", "مُعَالَجَة"),
        ("हिन्दी-भाषा", "हिन्दी भाषा"),
        ("Поиск_Информации", "поиск информации"),
        ("ÉCOLE d'été", "école d été"),
        ("１２３", "１２３"),
    ],
)
def test_surface_of_other_scripts_keeps_letters_marks_and_digits(tag, surface):
    assert RULE.surface(tag) == unicodedata.normalize("NFC", surface)
    assert RULE.stem(tag)


@pytest.mark.parametrize("tag", ["🙂", "++", "???", " ", "\u200d", "_", "©"])
def test_tag_without_letters_stays_itself(tag):
    assert RULE.surface(tag) == RULE.stem(tag) == tag
    assert len({RULE.stem(other) for other in ("🙂", "++", "?", "_")}) == 4


@pytest.mark.parametrize(
    "tag", ["Été", "J\u030c", "हिन्दी", "한국어", "Ångström", "İstanbul", "ὈΔΥΣΣΕΎΣ"]
)
def test_composed_and_decomposed_spellings_are_one_tag(tag):
    spellings = {unicodedata.normalize(form, tag) for form in ("NFC", "NFD")}
    assert len({RULE.surface(spelling) for spelling in spellings}) == 1
    assert len({RULE.stem(spelling) for spelling in spellings}) == 1


def test_surface_of_a_letter_composed_in_lower_case_only_is_composed():
    assert RULE.surface("J\u030c") == RULE.surface("\u01f0") == "\u01f0"


def test_stemmer_none_merges_by_surface_only():
    rule = TagRule(RuleConfig(stemmer="none"))
    assert rule.stem("Information_Retrieval") == "information retrieval"
    assert rule.stem("information retrieve") == "information retrieve"
    assert rule.stem("C++") == "c++"


def test_stemmer_snowball_is_of_its_language():
    english = TagRule(RuleConfig(stemmer="snowball"))
    german = TagRule(RuleConfig(stemmer="snowball", language="german"))
    assert english.stem("generously") == "generous"  # Porter says gener
    assert RULE.stem("generously") == "gener"
    assert german.stem("Häuser") == german.stem("Hauses") == "haus"
    assert german.stem("C#") == "c#"


def test_language_without_a_stemmer_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"language: got \"klingon\".*'english'"):
        validate(RuleConfig, {"stemmer": "snowball", "language": "klingon"}, "rule")


def test_own_protect_list_replaces_the_default():
    rule = TagRule(RuleConfig(protect=("K-Means", "Business")))
    assert rule.surface("K-MEANS clustering") == "k-means clustering"
    assert rule.stem("k-means clustering") == "k-means cluster"
    assert rule.stem("business") == "business"
    assert rule.stem("businesses") == "busi"
    assert rule.surface("C++") == "c"
    assert TagRule(RuleConfig(protect=())).surface(".NET") == "net"


@given(TAGS)
@example("J\u030c")
@example("İ")
def test_forms_of_any_tag_are_never_empty_and_stay_put(tag):
    surface, stem = RULE.surface(tag), RULE.stem(tag)
    assert surface
    assert stem
    assert RULE.surface(surface) == surface
    assert RULE.stem(surface) == stem


@given(TAGS)
def test_forms_of_any_tag_are_those_of_its_decomposed_spelling(tag):
    decomposed = unicodedata.normalize("NFD", tag)
    assert RULE.surface(unicodedata.normalize("NFC", tag)) == RULE.surface(decomposed)
    assert RULE.stem(unicodedata.normalize("NFC", tag)) == RULE.stem(decomposed)
