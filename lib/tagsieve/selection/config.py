"""Which rows make a training set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, field_validator

from tagsieve.config import RecipeModel, kind_or
from tagsieve.selection.expressions import names_in

OverTurns = Literal["sum", "mean", "max", "first", "product_of_sums"]


class _Selection(RecipeModel):
    """What every selection has."""

    name: str = Field(
        "selection",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name in the `selections` table; running again under it replaces it.",
    )
    size: int = Field(6000, ge=1, description="Rows to select (N).")
    dedupe: Literal["pools", "none"] = Field(
        "pools", description="A conversation in several pools counts once, for the first of them."
    )
    shortfall: Literal["error", "report"] = Field(
        "report", description="What to do when the pool cannot fill the selection."
    )
    explain: bool = Field(
        False, description="Store every row that was not selected in `rejects`, with its reason."
    )

    @property
    def reads(self) -> frozenset[str]:
        """Which of `tags`, `scores` and `embeddings` the strategy reads."""
        return frozenset()

    @property
    def scorers(self) -> frozenset[str]:
        """The scorers that it names."""
        return frozenset()


class _Scored(_Selection):
    """A selection in the order of a score."""

    score: str = Field(
        "complexity * quality",
        description="Arithmetic over the names of scorers, higher first: + - * / **, abs, exp, "
        "log, sqrt, min, max, and over all rows zscore(x) and rank(x), the share of rows with a "
        "lower x.",
    )
    over_turns: OverTurns = Field(
        "sum",
        description="A conversation's score: of its turns' scores, each by the expression; "
        "product_of_sums: the expression of each scorer's sum over the turns.",
    )

    @field_validator("score")
    @classmethod
    def _arithmetic(cls, value: str) -> str:
        if not names_in(value):
            raise ValueError("name at least one scorer in it, as in complexity * quality")
        return value

    @property
    def reads(self) -> frozenset[str]:
        """The scores."""
        return frozenset({"scores"})

    @property
    def scorers(self) -> frozenset[str]:
        """The scorers in the expression."""
        return names_in(self.score)


class _Vectors(RecipeModel):
    """A selection by vectors."""

    workers: int = Field(
        1, ge=1, description="Ray actors that share the work, each with a GPU where there is one."
    )


class ComplexityFirstConfig(_Selection):
    """InsTag's Algorithm 1."""

    strategy: Literal["complexity_first"] = Field(
        "complexity_first", description="InsTag's Algorithm 1: complexity-first diverse sampling."
    )

    @property
    def reads(self) -> frozenset[str]:
        """The tags."""
        return frozenset({"tags"})


class TopScoreConfig(_Scored):
    """The best rows by a score."""

    strategy: Literal["top_score"] = Field("top_score", description="The best by a score.")
    lowest: bool = Field(False, description="Take the lowest scores instead.")


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
    def reads(self) -> frozenset[str]:
        """The vectors and the scores."""
        return frozenset({"embeddings", "scores"})


class KCenterConfig(_Selection, _Vectors):
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


class KMeansConfig(_Selection, _Clustered):
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


SelectConfig = Annotated[
    Annotated[ComplexityFirstConfig, Tag("complexity_first")]
    | Annotated[TopScoreConfig, Tag("top_score")]
    | Annotated[TagDiversityConfig, Tag("tag_diversity")]
    | Annotated[ReprFilterConfig, Tag("repr_filter")]
    | Annotated[KCenterConfig, Tag("kcenter")]
    | Annotated[KMeansConfig, Tag("kmeans")]
    | Annotated[SemDedupConfig, Tag("semdedup")],
    kind_or("complexity_first", "strategy"),
]
