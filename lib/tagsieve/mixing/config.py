"""Which mixtures are made of which pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, Tag, field_validator, model_validator

from tagsieve.config import Names, RecipeModel, kind_or

MOST_COMBINED = 8
"""Parts of a study of combinations, which makes a mixture of each subset of them."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=_NAME)]
Amount = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Mix(RecipeModel):
    """What every mixture has."""

    name: str = Field(
        "mix",
        pattern=_NAME,
        description="Name in the `mixtures` table; running again under it replaces it. The "
        "mixtures of a study add to it.",
    )
    seed: int = Field(0, description="Decides which rows are drawn, and in which order.")
    selection: str | None = Field(
        None, description="Mix only the rows of this selection; default: all samples."
    )
    dedupe: Literal["pools", "none"] = Field(
        "pools", description="A conversation in several pools counts once, for the first of them."
    )
    subtask: str | None = Field(
        None,
        description="Key of `samples.meta` that names a row's subtask, such as template. Of each "
        "subtask in a part at most `cap` rows, drawn at random, can be had; rows without the key "
        "are not capped.",
    )
    cap: int = Field(1000, ge=1, description="Most rows of a subtask, where `subtask` is set.")
    tokens_by: Names = Field(
        (),
        description="Amounts are tokens, not rows: the sum of these scorers of score.scorers (of "
        "kind length) over a conversation's turns.",
    )
    over_ask: Literal["error", "cap", "replace"] = Field(
        "error",
        description="When a part has less than is asked of it. cap: all that it has; replace: its "
        "rows again, all of them before any is there once more, told by `copy`.",
    )
    explain: bool = Field(
        False, description="Store every row that is in no mixture in `rejects`, with its reason."
    )

    @property
    def unit(self) -> str:
        """What amounts count: `rows` or `tokens`."""
        return "tokens" if self.tokens_by else "rows"

    @property
    def reads(self) -> frozenset[str]:
        """Which of `tags`, `scores` and `selections` are read."""
        read = {"scores": bool(self.tokens_by), "selections": self.selection is not None}
        return frozenset(name for name, needed in read.items() if needed)

    def pools_of(self, inputs: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The pools of each part; `inputs`: the recipe's pools."""
        raise NotImplementedError

    def names(self, inputs: Sequence[str]) -> list[str]:  # noqa: ARG002
        """The names of the mixtures that have rows."""
        return [self.name]

    def check(self, inputs: Sequence[str]) -> None:
        """Raise ValueError when the mixtures cannot be made of the recipe's pools."""
        if not self.pools_of(inputs):
            raise ValueError("mix.parts is empty, and there are no inputs; name parts and pools")


class _OfPools(_Mix):
    """A mixture whose parts are pools."""

    parts: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        {},
        description="Parts by name, each of one pool or more, as in {general: [alpaca, dolly], "
        "code: [code_alpaca]}; default: every input pool is a part.",
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        uses = Counter(pool for pools in self.parts.values() for pool in pools)
        twice = [pool for pool, n in uses.items() if n > 1]
        if twice:
            raise ValueError(f"parts name the pool {twice[0]} twice; name it in one part, once")
        return self

    def pools_of(self, inputs: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The parts, or a part for each input pool."""
        return self.parts or {pool: (pool,) for pool in dict.fromkeys(inputs)}

    def _known(self, named: Sequence[str], setting: str, inputs: Sequence[str]) -> None:
        parts = self.pools_of(inputs)
        lacking = [part for part in named if part not in parts]
        if lacking:
            raise ValueError(f"{setting} names {lacking[0]}; the parts are {', '.join(parts)}")


class EqualConfig(_OfPools):
    """As much of each part."""

    strategy: Literal["equal"] = Field("equal", description="As much of each part.")
    each: int = Field(ge=1, description="Rows (or tokens) of each part.")


class CountsConfig(_OfPools):
    """Amounts by part."""

    strategy: Literal["counts"] = Field("counts", description="So much of each part.")
    counts: dict[str, Amount] = Field(
        min_length=1, description="Rows (or tokens) by part, as in {general: 20000, code: 3000}."
    )

    def check(self, inputs: Sequence[str]) -> None:
        """Also that the counts are of parts."""
        super().check(inputs)
        self._known(list(self.counts), "mix.counts", inputs)


class _Shares(RecipeModel):
    """A mixture of a given size in given shares."""

    size: int = Field(ge=1, description="Rows (or tokens) of the mixture.")
    shares: dict[str, Positive] = Field(min_length=1, description="Shares; they sum to 1.")

    @field_validator("shares")
    @classmethod
    def _whole(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        if not value:
            return value
        total = sum((Fraction(repr(share)) for share in value.values()), Fraction())
        if abs(total - 1) > Fraction(1, 10**6):
            raise ValueError(f"the shares sum to {float(total):g}; make them sum to 1")
        return value


class ProportionsConfig(_Shares, _OfPools):
    """Target proportions by part."""

    strategy: Literal["proportions"] = Field(
        "proportions", description="A mixture of a given size, in shares by part."
    )
    shares: dict[str, Positive] = Field({}, description="Shares; they sum to 1.")
    shares_of: str | None = Field(
        None,
        description="Take the shares that the parts have in this selection, such as one that "
        "matches a target.",
    )

    @property
    def reads(self) -> frozenset[str]:
        """The selection, too."""
        return super().reads | ({"selections"} if self.shares_of else set())

    @model_validator(mode="after")
    def _either(self) -> Self:
        if bool(self.shares) == (self.shares_of is not None):
            raise ValueError(
                "set either shares (by part) or shares_of (a selection whose shares to take)"
            )
        return self

    def check(self, inputs: Sequence[str]) -> None:
        """Also that the shares are of parts."""
        super().check(inputs)
        self._known(list(self.shares), "mix.shares", inputs)


class TagsConfig(_Shares, _Mix):
    """Target proportions by tag."""

    strategy: Literal["tags"] = Field(
        "tags",
        description="A mixture of a given size, in shares by tag, each a part of its own. A row "
        "with several of the tags is of the first one listed.",
    )
    pools: tuple[str, ...] = Field((), description="Pools to draw from; default: the inputs'.")

    @property
    def reads(self) -> frozenset[str]:
        """The tags, too."""
        return super().reads | {"tags"}

    def pools_of(self, inputs: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Every tag's rows may be of all pools."""
        pools = self.pools or tuple(dict.fromkeys(inputs))
        return dict.fromkeys(self.shares, pools) if pools else {}

    def check(self, inputs: Sequence[str]) -> None:
        """That there are pools."""
        if not self.pools_of(inputs):
            raise ValueError("mix.pools is empty, and there are no inputs; name the pools")


class TemperatureConfig(_OfPools):
    """Shares by size, evened out by a temperature."""

    strategy: Literal["temperature"] = Field(
        "temperature",
        description="A mixture of a given size, in shares that go with n^(1/T) of a part's n rows.",
    )
    size: int = Field(ge=1, description="Rows (or tokens) of the mixture.")
    temperature: float = Field(
        ge=1,
        allow_inf_nan=False,
        description="T. 1: as the parts are; the higher, the more equal.",
    )


class CombinationsConfig(_OfPools):
    """The study of combinations ("Demystifying Instruction Mixing", section 3)."""

    strategy: Literal["combinations"] = Field(
        "combinations",
        description="A study: as much of each part, a mixture for each set of parts, called after "
        "them (NAME-general-code). That of no part, NAME-none, has no rows.",
    )
    each: int = Field(20_000, ge=1, description="Rows (or tokens) of each part.")

    def sets(self, inputs: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Name -> parts of each mixture, from those of one part to that of all."""
        from itertools import combinations

        parts = list(self.pools_of(inputs))
        return {
            "-".join((self.name, *chosen)): chosen
            for size in range(1, len(parts) + 1)
            for chosen in combinations(parts, size)
        }

    def names(self, inputs: Sequence[str]) -> list[str]:
        """One for each set of parts but the empty one."""
        return list(self.sets(inputs))

    def check(self, inputs: Sequence[str]) -> None:
        """Also that there are few enough, of different names."""
        super().check(inputs)
        parts = self.pools_of(inputs)
        if len(parts) > MOST_COMBINED:
            raise ValueError(
                f"{len(parts)} parts have {2 ** len(parts):,} combinations; name at most "
                f"{MOST_COMBINED} in mix.parts"
            )
        if len(self.sets(inputs)) < 2 ** len(parts) - 1:
            raise ValueError(
                "two combinations of mix.parts have one name; call the parts otherwise"
            )


class RatiosConfig(_OfPools):
    """The study of ratios ("Demystifying Instruction Mixing", figure 2)."""

    strategy: Literal["ratios"] = Field(
        "ratios",
        description="A study: a fixed amount of one part, and of each other part so many times as "
        "much; a mixture for each ratio (NAME-r1.5).",
    )
    base: str = Field(description="The part that is fixed.")
    base_size: int = Field(20_000, ge=1, description="Rows (or tokens) of it.")
    ratios: tuple[Positive, ...] = Field(
        (0.5, 1, 1.5, 2), min_length=1, description="Of each other part to it; to whole numbers."
    )

    def names(self, inputs: Sequence[str]) -> list[str]:  # noqa: ARG002
        """One for each ratio."""
        return [self.name_of(ratio) for ratio in self.ratios]

    def name_of(self, ratio: float) -> str:
        """The mixture of a ratio."""
        return f"{self.name}-r{ratio:g}"

    def check(self, inputs: Sequence[str]) -> None:
        """Also that the base is a part beside others, and that no ratio is there twice."""
        super().check(inputs)
        self._known([self.base], "mix.base", inputs)
        if len(self.pools_of(inputs)) < 2:
            raise ValueError(f"mix.base={self.base} is the only part; name another in mix.parts")
        _once(self.names(inputs), "mix.ratios")


class SizesConfig(_OfPools):
    """The study of sizes ("Demystifying Instruction Mixing", figure 2)."""

    strategy: Literal["sizes"] = Field(
        "sizes", description="A study: as much of each part, a mixture for each size (NAME-n3000)."
    )
    sizes: tuple[Amount, ...] = Field(
        min_length=1, description="Rows (or tokens) of each part, by mixture."
    )

    def names(self, inputs: Sequence[str]) -> list[str]:  # noqa: ARG002
        """One for each size."""
        return [self.name_of(size) for size in self.sizes]

    def name_of(self, size: int) -> str:
        """The mixture of a size."""
        return f"{self.name}-n{size}"

    def check(self, inputs: Sequence[str]) -> None:
        """Also that no size is there twice."""
        super().check(inputs)
        _once(self.names(inputs), "mix.sizes")


def _once(names: Sequence[str], setting: str) -> None:
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise ValueError(f"{setting} makes the mixture {twice[0]} twice; name each value once")


MixConfig = Annotated[
    Annotated[EqualConfig, Tag("equal")]
    | Annotated[CountsConfig, Tag("counts")]
    | Annotated[ProportionsConfig, Tag("proportions")]
    | Annotated[TemperatureConfig, Tag("temperature")]
    | Annotated[TagsConfig, Tag("tags")]
    | Annotated[CombinationsConfig, Tag("combinations")]
    | Annotated[RatiosConfig, Tag("ratios")]
    | Annotated[SizesConfig, Tag("sizes")],
    kind_or("equal", "strategy"),
]
