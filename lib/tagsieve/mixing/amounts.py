"""How much of each part every mixture asks for, and gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tagsieve.errors import RunError
from tagsieve.mixing.config import (
    CombinationsConfig,
    CountsConfig,
    EqualConfig,
    MixConfig,
    ProportionsConfig,
    RatiosConfig,
    SizesConfig,
    TagsConfig,
    TemperatureConfig,
)


@dataclass(frozen=True)
class Ask:
    """An amount that a mixture wants of a part, in rows or tokens, and the setting that says so."""

    mixture: str
    part: str
    amount: int
    setting: str


def asks(config: MixConfig, parts: Sequence[str], there: Mapping[str, int]) -> list[Ask]:
    """What every mixture asks of its parts; a mixture that is not named asks for nothing.

    `there`: the amount that each part has. Amounts of shares are whole by largest remainders, of
    ratios rounded, halves up.
    """
    match config:
        case EqualConfig(name=name, each=each):
            return [Ask(name, part, each, f"mix.each={each}") for part in parts]
        case CountsConfig(name=name, counts=counts):
            return [
                Ask(name, part, count, f"mix.counts.{part}={count}")
                for part, count in counts.items()
            ]
        case ProportionsConfig() | TagsConfig():
            weights: Sequence[float] = list(config.shares.values())
            settings = [f"mix.shares.{part}={share}" for part, share in config.shares.items()]
            if isinstance(config, ProportionsConfig) and config.shares_of is not None:
                settings = [f"mix.shares_of={config.shares_of}"] * len(weights)
            return _shared(config.name, config.size, list(config.shares), weights, settings)
        case TemperatureConfig(temperature=temperature):
            # What an empty part asks for is refused later.
            weights = [max(there[part], 1) ** (1 / temperature) for part in parts]
            settings = [f"mix.temperature={temperature}"] * len(parts)
            return _shared(config.name, config.size, parts, weights, settings)
        case CombinationsConfig(each=each):
            return [
                Ask(name, part, each, f"mix.each={each}")
                for name, chosen in config.sets(parts).items()
                for part in chosen
            ]
        case RatiosConfig(base=base, base_size=size):
            made = []
            for ratio in config.ratios:
                amount = int(Fraction(repr(ratio)) * size + Fraction(1, 2))
                setting = f"mix.ratios: {ratio:g} of mix.base_size={size}"
                for part in parts:
                    asked = (size, f"mix.base_size={size}") if part == base else (amount, setting)
                    made.append(Ask(config.name_of(ratio), part, *asked))
            return made
        case SizesConfig():
            return [
                Ask(config.name_of(size), part, size, f"mix.sizes: {size}")
                for size in config.sizes
                for part in parts
            ]


def _shared(
    name: str, size: int, parts: Sequence[str], weights: Sequence[float], settings: Sequence[str]
) -> list[Ask]:
    amounts = largest_remainders(size, weights)
    return [
        Ask(name, part, amount, f"{setting} of mix.size={size}")
        for part, amount, setting in zip(parts, amounts, settings, strict=True)
    ]


def largest_remainders(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to `weights` (not negative, not all 0) that sum to `total`.

    Each has its whole quota; what is left goes, one each, to the largest remainders (Hamilton's
    method; ties: in order). Exact: weights are taken as the decimals that they are written as.
    """
    exact = [Fraction(repr(weight)) for weight in weights]
    quotas = [total * weight / sum(exact) for weight in exact]
    whole = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda n: whole[n] - quotas[n])
    for n in by_remainder[: total - sum(whole)]:
        whole[n] += 1
    return whole


def granted(config: MixConfig, asked: Sequence[Ask], there: Mapping[str, int]) -> list[Ask]:
    """The amounts that mixtures get: as asked, save what `over_ask` caps.

    `there`: the amount that each part has. Raises RunError for every part that has nothing, and
    under `over_ask` error for every one that has less than is asked of it.
    """
    errors = {
        f"{ask.setting}: the part {ask.part} has no rows to mix; look at its pools, mix.selection "
        "and the ledger's reasons"
        for ask in asked
        if not there[ask.part]
    }
    if config.over_ask == "error":
        errors |= {
            f"{ask.setting}: {ask.amount:,} {config.unit} are asked of the part {ask.part}, which "
            f"has {there[ask.part]:,}; ask for at most that, or set mix.over_ask to cap or replace"
            for ask in asked
            if ask.amount > there[ask.part] > 0
        }
    if errors:
        raise RunError("\n".join(sorted(errors)))
    if config.over_ask == "replace":
        return list(asked)
    return [
        Ask(ask.mixture, ask.part, min(ask.amount, there[ask.part]), ask.setting) for ask in asked
    ]
