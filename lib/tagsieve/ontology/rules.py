"""The rule step (InsTag, section 3.2): the surface form and the stem of a tag."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache

import regex

from tagsieve.ontology.config import RuleConfig

# Letters, combining marks and digits of any script make words; all else, "_" too, is special.
_WORD = r"[\p{L}\p{M}\p{N}]"
_SPECIAL = r"[^\p{L}\p{M}\p{N}]"


class TagRule:
    """`surface` and `stem` of a tag under one config. Pure functions of the tag."""

    def __init__(self, config: RuleConfig) -> None:
        self._stem_word = _stemmer(config.stemmer, config.language)
        names = sorted({_fold(name) for name in config.protect}, key=lambda n: (-len(n), n))
        self._protected = frozenset(names)
        signed = "".join(_pattern(name) + "|" for name in names if regex.search(_SPECIAL, name))
        self._words = regex.compile(f"{signed}{_WORD}+")

    def words(self, tag: str) -> list[str]:
        """The words of a tag in lower case, protected names whole."""
        return list(self._words.findall(_fold(tag)))

    def surface(self, tag: str) -> str:
        """Lower case, special characters as spaces; a tag of nothing else stays as it is.

        `information_retrieval` -> `information retrieval`, `C++` -> `c++`.
        """
        return " ".join(self.words(tag)) or " ".join(_fold(tag).split()) or tag

    def stem(self, tag: str) -> str:
        """The surface form with each word stemmed: tags with one stem are one tag."""
        stems = [
            word if word in self._protected else self._stem_word(word) or word
            for word in self.words(tag)
        ]
        return " ".join(stems) or self.surface(tag)


def _pattern(name: str) -> str:
    """Matches a protected name between borders: `c++` in `c++17`, no `.net` in `a.net`."""
    border = _WORD if regex.search(rf"{_WORD}$", name) else "[+#]"
    return rf"(?<!{_WORD}){regex.escape(name)}(?!{border})"


def _fold(tag: str) -> str:
    # Composed after lower-casing: some letters have a composed form in lower case only.
    return unicodedata.normalize("NFC", tag.lower())


@cache
def _stemmer(name: str, language: str) -> Callable[[str], str]:
    # There are far fewer words than tags.
    return lru_cache(2**16)(_plain_stemmer(name, language))


def _plain_stemmer(name: str, language: str) -> Callable[[str], str]:
    if name == "none":
        return lambda word: word
    if name == "porter":
        from nltk.stem.porter import PorterStemmer

        return PorterStemmer().stem  # type: ignore[no-any-return, unused-ignore]
    from nltk.stem.snowball import SnowballStemmer

    return SnowballStemmer(language).stem  # type: ignore[no-any-return, unused-ignore]
