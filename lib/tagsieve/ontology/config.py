"""How raw tags are normalised (InsTag, section 3.2), and how pools are analysed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tagsieve.config import RecipeModel

PROTECTED = (
    "c", "c++", "c#", "f#", "j#", "objective-c", "r", ".net", "asp.net", "vb.net", "ado.net",
    "node.js", "next.js", "vue.js", "three.js", "d3.js", "express.js", "react.js",
)  # fmt: skip
"""Names that stay whole: their signs tell them apart."""

SnowballLanguage = Literal[
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "hungarian", "italian",
    "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish",
]  # fmt: skip


class RuleConfig(RecipeModel):
    """The rule step: lower case, special characters to spaces, a stem for each word."""

    stemmer: Literal["porter", "snowball", "none"] = Field(
        "porter", description="NLTK's Porter (the paper's), Snowball of `language`, or no stemming."
    )
    language: SnowballLanguage = Field("english", description="Language of the Snowball stemmer.")
    protect: tuple[str, ...] = Field(
        PROTECTED,
        description="Words kept as they are, such as C++ and .NET; compared in lower case.",
    )


class NormalizeConfig(RecipeModel):
    """The steps that turn raw tags into an ontology version."""

    min_count: int = Field(
        20, ge=1, description="Raw tags seen less often are `rare` (InsTag's alpha)."
    )
    count_after: Literal["raw", "rule"] = Field(
        "raw", description="Count raw strings (the paper's reading), or rule tags."
    )
    weight: Literal["queries", "occurrences"] = Field(
        "queries", description="Count a tag once per distinct query, or once per human turn."
    )
    rule: RuleConfig = Field(default_factory=RuleConfig)


class AnalyzeConfig(RecipeModel):
    """Diversity, complexity and recall of the pools of one ontology version, and how far its tagger
    agrees with another one."""

    compare_tagger: str | None = Field(
        None,
        min_length=1,
        description="Fingerprint of another tagger in `raw_tags`, or the beginning of one: analyze "
        "also compares this recipe's tagger with it; that one's tags are taken for right in "
        "precision, recall and F1.",
    )
