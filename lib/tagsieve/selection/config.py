"""Which rows make a training set."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Tag, model_validator

from tagsieve.config import Names, RecipeModel, kind_or
from tagsieve.selection.expressions import names_in, words_in

OverTurns = Literal["sum", "mean", "max", "first", "product_of_sums"]


def _arithmetic(value: str) -> str:
    if not names_in(value):
        raise ValueError("name at least one scorer in it, as in complexity * quality")
    return value


Expression = Annotated[str, AfterValidator(_arithmetic)]
"""Arithmetic over the names of scorers."""


class _Selection(RecipeModel):
    """What every selection has."""

    name: str = Field(
        "selection",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name in the `selections` table; running again under it replaces it.",
    )
    where: str | None = Field(
        None,
        description="An SQL condition that a row must meet: over pool, lang, turns, chars (of all "
        "turns), meta, source, tags, and the names of scorers (a conversation's mean over its "
        "turns).",
    )
    without: Names = Field(
        (), description="Selections whose rows are not to be taken again (InsTag's studies)."
    )
    tokens: int | None = Field(
        None,
        ge=1,
        description="Most tokens of all rows together: the selection ends before the row that "
        "would be too many. Needs tokens_by.",
    )
    tokens_by: Names = Field(
        (), description="The scorers whose sum over the turns is a row's tokens."
    )
    dedupe: Literal["pools", "none"] = Field(
        "pools", description="A conversation in several pools counts once, for the first of them."
    )
    shortfall: Literal["error", "report"] = Field(
        "report", description="What to do when the pool cannot fill the selection."
    )
    explain: bool = Field(
        False, description="Store every row that was not selected in `rejects`, with its reason."
    )

    @model_validator(mode="after")
    def _tokens_of_a_scorer(self) -> Self:
        if (self.tokens is None) != (not self.tokens_by):
            raise ValueError(
                "tokens and tokens_by go together, as in tokens: 1000000, tokens_by: length"
            )
        return self

    @property
    def rows(self) -> int | None:
        """Most rows; None where there is no such limit."""
        return None

    @property
    def reads(self) -> frozenset[str]:
        """Of `tags`, `scores`, `embeddings`, `clusters`, `judgements` those that it reads."""
        return frozenset({"scores"} if self.expression else ())

    @property
    def expression(self) -> str | None:
        """The score that orders the rows."""
        return None

    @property
    def scorers(self) -> frozenset[str]:
        """The scorers that must be there."""
        named = names_in(self.expression) if self.expression else frozenset()
        return named | frozenset(self.tokens_by)

    @property
    def prefix_of_larger(self) -> bool:
        """Whether a selection of fewer rows is the beginning of one of more, in the ledger, too."""
        return self.rows is not None and not self.explain and self.tokens is None

    @property
    def words(self) -> frozenset[str]:
        """The names in `where`: of columns, functions, scorers."""
        return words_in(self.where) if self.where else frozenset()


class Sized(_Selection):
    """A selection of so many rows."""

    size: int = Field(
        6000, ge=1, description="Rows to select (N). With tokens and no size there is no limit."
    )

    @property
    def rows(self) -> int | None:
        """`size`, unless tokens alone are given."""
        return None if self.tokens and "size" not in self.model_fields_set else self.size


class ByScore(RecipeModel):
    """How a conversation's score is made."""

    over_turns: OverTurns = Field(
        "sum",
        description="A conversation's score: of its turns' scores, each by the expression; "
        "product_of_sums: the expression of each scorer's sum over the turns.",
    )


class _Scored(Sized, ByScore):
    """A selection in the order of a score."""

    score: Expression = Field(
        "complexity * quality",
        description="Arithmetic over the names of scorers, higher first: + - * / **, abs, exp, "
        "log, sqrt, min, max, and over all rows zscore(x) and rank(x), the share of rows with a "
        "lower x.",
    )

    @property
    def expression(self) -> str | None:
        """`score`."""
        return self.score


class _Seeded(RecipeModel):
    """A selection that draws."""

    seed: int = Field(0, description="Of the draw: a row's place depends on it and the row alone.")


class _Vectors(RecipeModel):
    """A selection by vectors."""

    workers: int = Field(
        1, ge=1, description="Ray actors that share the work, each with a GPU where there is one."
    )


class ComplexityFirstConfig(Sized):
    """InsTag's Algorithm 1."""

    strategy: Literal["complexity_first"] = Field(
        "complexity_first", description="InsTag's Algorithm 1: complexity-first diverse sampling."
    )

    @property
    def reads(self) -> frozenset[str]:
        """The tags."""
        return frozenset({"tags"})


class TagCoverageConfig(Sized):
    """InsTag's Algorithm 3."""

    strategy: Literal["tag_coverage"] = Field(
        "tag_coverage",
        description="InsTag's Algorithm 3: rows that cover a share of the tags, filled up with "
        "rows that add none, of a given mean number of tags.",
    )
    coverage: float = Field(1.0, ge=0, le=1, description="Share of all tags to cover.")
    mean_tags: float = Field(5.0, gt=0, description="Mean number of tags to keep to.")

    @property
    def prefix_of_larger(self) -> bool:
        """No: what fills it up depends on its size."""
        return False

    @property
    def reads(self) -> frozenset[str]:
        """The tags."""
        return frozenset({"tags"})


class TopScoreConfig(_Scored, _Seeded):
    """The best rows by a score."""

    strategy: Literal["top_score"] = Field("top_score", description="The best by a score.")
    lowest: bool = Field(False, description="Take the lowest scores instead.")
    ties: Literal["id", "random"] = Field(
        "id",
        description="Which of equal scores come first: by sample id, or drawn by `seed` (Longest's "
        "selection by quality: all of the best score, filled up at random from the next).",
    )


class RandomConfig(Sized, _Seeded):
    """A uniform sample."""

    strategy: Literal["random"] = Field("random", description="At random.")


class FullConfig(_Selection):
    """All rows."""

    strategy: Literal["full"] = Field("full", description="All rows, by sample id.")


class TagDiversityConfig(_Scored):
    """InsTag's diversity as DEITA's baseline uses it."""

    strategy: Literal["tag_diversity"] = Field(
        "tag_diversity",
        description="In the order of a score, every row with a tag that no earlier one had.",
    )

    @property
    def reads(self) -> frozenset[str]:
        """The tags and the scores."""
        return frozenset({"tags", "scores"})


class ReprFilterConfig(_Scored, _Vectors):
    """DEITA's selection."""

    strategy: Literal["repr_filter"] = Field(
        "repr_filter",
        description="DEITA: in the order of a score, every row that is not too like a taken one.",
    )
    tau: float = Field(
        0.9, gt=-1, le=1, description="A row more alike than this to a taken one is refused."
    )

    @property
    def prefix_of_larger(self) -> bool:
        """No: the ledger counts what was refused before the last row."""
        return False

    @property
    def reads(self) -> frozenset[str]:
        """The vectors and the scores."""
        return frozenset({"embeddings", "scores"})


class KCenterConfig(Sized, _Vectors):
    """Greedy k-center."""

    strategy: Literal["kcenter"] = Field(
        "kcenter", description="Greedy k-center: always the row farthest from those taken."
    )
    seed: int = Field(0, description="Which row is the first.")

    @property
    def reads(self) -> frozenset[str]:
        """The vectors."""
        return frozenset({"embeddings"})


class _Clustered(_Vectors):
    """A selection by clusters."""

    clusters: int = Field(100, ge=1, description="Number of clusters (k).")
    seed: int = Field(0, description="Of the clusters, and of rows drawn from them.")
    iterations: int = Field(25, ge=1, description="Of k-means.")


class KMeansConfig(Sized, _Clustered):
    """As many rows from each cluster."""

    strategy: Literal["kmeans"] = Field(
        "kmeans", description="As many rows at random from each k-means cluster."
    )

    @property
    def reads(self) -> frozenset[str]:
        """The vectors."""
        return frozenset({"embeddings"})


class SemDedupConfig(_Scored, _Clustered):
    """Near-duplicates within k-means clusters removed."""

    strategy: Literal["semdedup"] = Field(
        "semdedup",
        description="SemDeDup: of rows that are near-duplicates within a k-means cluster, the one "
        "with the best score; of these the best.",
    )
    threshold: float = Field(
        0.95, gt=-1, le=1, description="A row more alike than this to a better one is removed."
    )

    @property
    def reads(self) -> frozenset[str]:
        """The vectors and the scores."""
        return frozenset({"embeddings", "scores"})


class ComparativeConfig(Sized):
    """TACOS's selection."""

    strategy: Literal["comparative"] = Field(
        "comparative",
        description="TACOS: as many from each cluster of tags, those first that a judge scored "
        "highest beside others of the cluster; needs the steps cluster and judge.",
    )

    @property
    def reads(self) -> frozenset[str]:
        """The clusters, and what the judge said."""
        return frozenset({"clusters", "judgements"})


class StratifiedConfig(Sized, _Clustered, ByScore):
    """So many rows from each stratum."""

    strategy: Literal["stratified"] = Field(
        "stratified", description="From each stratum a share of the rows."
    )
    by: str = Field(
        "pool",
        pattern=r"^(pool|lang|tag|cluster|meta\..+)$",
        description="What a row's stratum is: pool, lang, tag (the rarest of its tags), cluster "
        "(of k-means over its vector), or a value of its meta, as in meta.template.",
    )
    allocation: Literal["proportional", "equal", "sqrt", "temperature"] = Field(
        "proportional",
        description="A stratum of n rows weighs n, 1, the square root of n, or n ** (1 / "
        "temperature).",
    )
    temperature: float = Field(2.0, gt=0, description="Of allocation: temperature.")
    quotas: dict[str, int] = Field({}, description="Strata that give exactly so many rows.")
    at_least: int | dict[str, int] = Field(
        0, description="Rows that each stratum gives first, or each of those named."
    )
    at_most: int | dict[str, int] | None = Field(
        None, description="Most rows of each stratum, or of each of those named."
    )
    score: Expression | None = Field(
        None, description="The best by this score come first in a stratum; without it, at random."
    )

    @property
    def expression(self) -> str | None:
        """`score`."""
        return self.score

    @property
    def reads(self) -> frozenset[str]:
        """What the strata and the order within them are made of."""
        of = {"tag": {"tags"}, "cluster": {"embeddings"}}.get(self.by, set())
        return super().reads | of


class MatchTargetConfig(Sized, ByScore, _Vectors):
    """The rows that cover a sample of the queries one cares about."""

    strategy: Literal["match_target"] = Field(
        "match_target",
        description="The rows that cover a target best: first those with its tags, then the "
        "nearest to its queries, then the best by a score.",
    )
    target: Names = Field(
        (), description="Pools that are the target; default: the inputs with target: true."
    )
    by: Annotated[tuple[Literal["tags", "vectors"], ...], Field(min_length=1)] = Field(
        ("tags", "vectors"), description="What the target is matched by."
    )
    passes: int | None = Field(
        1,
        ge=1,
        description="Passes of InsTag's Algorithm 1 over the target's tags, each of which covers "
        "every tag once more, before neighbours are taken; null: until the selection is full.",
    )
    neighbours: int = Field(
        100, ge=1, description="Nearest rows of each of the target's conversations to be taken."
    )
    score: Expression | None = Field(
        None, description="The best by this score come last; without it, no more are taken."
    )

    @property
    def expression(self) -> str | None:
        """`score`."""
        return self.score

    @property
    def reads(self) -> frozenset[str]:
        """What the target is matched by, and the score."""
        of = {"tags": "tags", "vectors": "embeddings"}
        return super().reads | {of[name] for name in self.by}


SelectConfig = Annotated[
    Annotated[ComplexityFirstConfig, Tag("complexity_first")]
    | Annotated[TagCoverageConfig, Tag("tag_coverage")]
    | Annotated[TopScoreConfig, Tag("top_score")]
    | Annotated[RandomConfig, Tag("random")]
    | Annotated[FullConfig, Tag("full")]
    | Annotated[StratifiedConfig, Tag("stratified")]
    | Annotated[TagDiversityConfig, Tag("tag_diversity")]
    | Annotated[ReprFilterConfig, Tag("repr_filter")]
    | Annotated[KCenterConfig, Tag("kcenter")]
    | Annotated[KMeansConfig, Tag("kmeans")]
    | Annotated[SemDedupConfig, Tag("semdedup")]
    | Annotated[ComparativeConfig, Tag("comparative")]
    | Annotated[MatchTargetConfig, Tag("match_target")],
    kind_or("complexity_first", "strategy"),
]
