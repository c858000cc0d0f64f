"""How raw tags are normalised (InsTag, section 3.2) and grouped, and how pools are analysed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

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


class SemanticConfig(RecipeModel):
    """The semantic step: phrases near each other become one tag."""

    encoder: str | None = Field(
        None,
        description="Folder or hub name of a sentence encoder (mean pooling), such as PhraseBERT, "
        "the paper's; default: the packaged MiniLM.",
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="The encoder's precision; auto: bfloat16 where the CPU of the machine that "
        "submits has it.",
    )
    eps: float = Field(0.05, ge=0, lt=1, description="Cosine distance of neighbours, inclusive.")
    min_samples: int = Field(
        2, ge=1, description="DBSCAN: tags within eps, itself among them, that make a core point."
    )
    max_diameter: float | None = Field(
        None,
        gt=0,
        lt=2,
        description="Largest cosine distance within a group; a cluster that chains unlike tags is "
        "split. Default: DBSCAN's clusters as they are.",
    )
    replicas: int = Field(1, ge=1, description="Actors that encode and search, each on its cores.")


class AssociationConfig(RecipeModel):
    """The association step: tags that others imply leave the query."""

    method: Literal["fpgrowth", "pairs"] = Field(
        "fpgrowth", description="FP-Growth, or only rules with one antecedent, counted as pairs."
    )
    min_support: int = Field(
        40, ge=1, description="Queries that hold a rule: a count, not a share."
    )
    min_confidence: float = Field(0.99, gt=0, le=1, description="Of a rule.")
    apply: Literal["drop", "alias"] = Field(
        "drop",
        description="drop: the implied tag leaves queries that have both; alias: it becomes the "
        "implying tag in every query.",
    )
    max_basket: int = Field(
        50, ge=2, description="Tags of a query that rules are mined from; the most frequent ones."
    )
    max_itemsets: int = Field(
        20_000_000, ge=1, description="FP-Growth is refused when it could find more itemsets."
    )


class RebuildConfig(RecipeModel):
    """When so much of a version came by updates that it is to be made anew: above any of these."""

    pending: float = Field(
        0.05,
        ge=0,
        description="Occurrences in updates without a tag, beyond the share that the build left "
        "without one, of all occurrences of the version.",
    )
    similar: float = Field(
        0.05, ge=0, description="Occurrences mapped by similarity, of all of the version."
    )
    growth: float = Field(
        1.0, ge=0, description="Conversations in updates, of those that it was built from."
    )


NormalizeStep = Literal["frequency", "rule", "semantic", "association"]


class NormalizeConfig(RecipeModel):
    """The steps that turn raw tags into an ontology version."""

    steps: tuple[NormalizeStep, ...] = Field(
        ("frequency", "rule", "semantic", "association"),
        description="In this order; leave some out, or re-order: rule before frequency counts rule "
        "tags, and TACOS has frequency, association, rule.",
    )
    min_count: int = Field(
        20, ge=1, description="Tags seen less often are `rare` (InsTag's alpha)."
    )
    weight: Literal["queries", "occurrences"] = Field(
        "queries", description="Count a tag once per distinct query, or once per human turn."
    )
    rule: RuleConfig = Field(default_factory=RuleConfig)
    semantic: SemanticConfig = Field(default_factory=SemanticConfig)
    association: AssociationConfig = Field(default_factory=AssociationConfig)
    edits: str | None = Field(
        None, description="YAML file with corrections by hand: merge, never_merge, rename."
    )
    update: Literal["auto", "increment", "rebuild"] = Field(
        "auto",
        description="increment: new rows join the version that these settings made; rebuild: a new "
        "version from all rows; auto: increment until `rebuild_when` says that a rebuild is due.",
    )
    rebuild_when: RebuildConfig = Field(default_factory=RebuildConfig)
    version: str | None = Field(
        None,
        pattern=r"^v[1-9][0-9]*$",
        description="Pin an ontology version, such as v3: its own settings and edits hold, new "
        "rows join it, and it is never made anew.",
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if len(set(self.steps)) < len(self.steps):
            raise ValueError("steps: each at most once")
        place = {step: number for number, step in enumerate(self.steps)}
        if place.get("frequency", -1) > place.get("association", 4):
            raise ValueError(
                "steps: frequency comes before association, whose rules need counted tags"
            )
        if self.version is not None and self.update == "rebuild":
            raise ValueError(
                f"version={self.version} pins a version, and update=rebuild asks for another one; "
                "leave one of them out"
            )
        return self


class ClusterConfig(RecipeModel):
    """Groups of tags by k-means over their vectors, whose encoder is that of `normalize.semantic`
    (TACOS, section III.A)."""

    clusters: int = Field(100, ge=1, description="Groups of tags (k), and of conversations.")
    seed: int = Field(0, description="Of k-means, and of the tags that it learns from.")
    iterations: int = Field(25, ge=1, description="Of k-means.")


class AnalyzeConfig(RecipeModel):
    """Diversity, complexity and recall of the pools of one ontology version, which tags mark a pool
    and which stand together, and how far its tagger agrees with another one."""

    pair_support: int = Field(
        10, ge=1, description="Conversations that hold a pair of `tag_pairs`, at least."
    )
    pair_tags: int = Field(
        50, ge=2, description="Tags of a conversation that pairs are made of; the most frequent."
    )

    compare_tagger: str | None = Field(
        None,
        min_length=1,
        description="Fingerprint of another tagger in `raw_tags`, or the beginning of one: analyze "
        "also compares this recipe's tagger with it; that one's tags are taken for right in "
        "precision, recall and F1.",
    )
