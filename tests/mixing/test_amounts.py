"""How much every mixture asks of its parts, and what becomes of too much."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed import mix_config
from tagsieve.errors import RunError
from tagsieve.mixing.amounts import asks, granted, largest_remainders

WEIGHTS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12)


def amounts(values, there):
    """Mixture -> part -> amount."""
    found = {}
    for ask in asks(mix_config(values), list(there), there):
        found.setdefault(ask.mixture, {})[ask.part] = ask.amount
    return found


@given(st.integers(0, 10**9), WEIGHTS)
def test_largest_remainders_sum_to_the_total_and_are_quotas_to_a_whole(total, weights):
    whole = largest_remainders(total, weights)
    exact = [Fraction(repr(weight)) for weight in weights]
    assert sum(whole) == total
    for number, weight in zip(whole, exact, strict=True):
        assert abs(number - total * weight / sum(exact)) < 1


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (10, [1, 1, 1], [4, 3, 3]),
        (5, [0.1, 0.2, 0.7], [1, 1, 3]),
        (5, [0.7, 0.2, 0.1], [4, 1, 0]),  # as floats, 0.7 is below 7/10 and 0.1 above 1/10
        (100, [0.29, 0.71], [29, 71]),
        (1, [1e-9, 1.0], [0, 1]),
        (0, [3, 4], [0, 0]),
    ],
)
def test_largest_remainders_go_to_the_first_of_equals(total, weights, expected):
    assert largest_remainders(total, weights) == expected


def test_asks_of_a_temperature_are_in_proportion_to_roots():
    there = {"a": 900, "b": 100}
    values = {"strategy": "temperature", "size": 40}
    assert amounts(values | {"temperature": 1}, there) == {"mix": {"a": 36, "b": 4}}
    assert amounts(values | {"temperature": 2}, there) == {"mix": {"a": 30, "b": 10}}
    assert amounts(values | {"temperature": 1e9}, there) == {"mix": {"a": 20, "b": 20}}


def test_asks_of_ratios_fix_the_base_and_round_halves_up():
    values = {"strategy": "ratios", "base": "b", "base_size": 5, "ratios": [0.5, 1.5, 2]}
    assert amounts(values, {"a": 9, "b": 9, "c": 9}) == {
        "mix-r0.5": {"a": 3, "b": 5, "c": 3},
        "mix-r1.5": {"a": 8, "b": 5, "c": 8},
        "mix-r2": {"a": 10, "b": 5, "c": 10},
    }


def test_asks_of_combinations_are_every_set_of_parts():
    found = amounts({"strategy": "combinations", "each": 7}, {"A": 9, "C": 9, "P": 9})
    names = ["A", "C", "P", "A-C", "A-P", "C-P", "A-C-P"]
    assert found == {f"mix-{name}": dict.fromkeys(name.split("-"), 7) for name in names}


def test_granted_errors_name_each_setting_once_and_what_there_is():
    there = {"general": 20_000, "code": 6_552, "none": 0}
    config = mix_config({"strategy": "combinations", "each": 20_000})
    with pytest.raises(RunError) as error:
        granted(config, asks(config, ["general", "code"], there), there)
    assert str(error.value) == (
        "mix.each=20000: 20,000 rows are asked of the part code, which has 6,552; ask for at most "
        "that, or set mix.over_ask to cap or replace"
    )
    for policy in ("error", "cap", "replace"):
        config = mix_config({"strategy": "counts", "counts": {"none": 3}, "over_ask": policy})
        with pytest.raises(RunError, match=r"mix.counts.none=3: the part none has no rows"):
            granted(config, asks(config, list(there), there), there)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"each": 9}, "mix.each=9: 9 rows"),
        ({"strategy": "sizes", "sizes": [1, 9]}, "mix.sizes: 9: 9 rows"),
        ({"strategy": "counts", "counts": {"a": 9}}, "mix.counts.a=9: 9 rows"),
        (
            {"strategy": "ratios", "base": "b", "base_size": 3, "ratios": [2.5]},
            "mix.ratios: 2.5 of mix.base_size=3: 8 rows",
        ),
        (
            {"strategy": "proportions", "size": 10, "shares": {"a": 0.6, "b": 0.4}},
            "mix.shares.a=0.6 of mix.size=10: 6 rows",
        ),
        (
            {"strategy": "temperature", "size": 12, "temperature": 2},
            "mix.temperature=2.0 of mix.size=12: 6 rows",
        ),
    ],
)
def test_granted_error_says_the_setting_of_each_strategy(values, said):
    there = {"a": 5, "b": 5}
    config = mix_config(values)
    asked = asks(config, ["a", "b"], there)
    with pytest.raises(RunError) as error:
        granted(config, asked, there)
    assert f"{said} are asked of the part a, which has 5;" in str(error.value)
    capped = granted(config.model_copy(update={"over_ask": "cap"}), asked, there)
    assert {ask.amount for ask in capped if ask.part == "a"} <= {1, 5}
    assert granted(config.model_copy(update={"over_ask": "replace"}), asked, there) == asked
