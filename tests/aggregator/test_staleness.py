"""How much a stale update weighs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.staleness import Staleness, constant, exponential, hinge, polynomial, staleness_named
from fedmq.schemas.errors import ConfigError
from tests.generators import unhurried

numbers = st.floats(0, 1e308)
functions = (
    st.just(constant())
    | st.builds(polynomial, numbers)
    | st.builds(hinge, numbers, numbers)
    | st.builds(exponential, numbers)
)


@unhurried
@given(functions)
def test_a_fresh_update_weighs_exactly_1(s: Staleness) -> None:
    assert s(0) == 1.0


@unhurried
@given(functions, st.integers(0, 1 << 62), st.integers(0, 1 << 62))
def test_more_staleness_never_weighs_more_and_never_nothing(s: Staleness, one: int, other: int) -> None:
    assert 1.0 >= s(min(one, other)) >= s(max(one, other)) > 0.0


@pytest.mark.parametrize(
    ("s", "tau", "weight"),
    [
        (constant(), 1_000_000, 1.0),
        (polynomial(), 3, 0.5),  # 4^-1/2
        (polynomial(), 99, 0.1),
        (polynomial(1.0), 4, 0.2),
        (hinge(), 4, 1.0),
        (hinge(), 5, 1 / 11),
        (hinge(), 14, 1 / 101),
        (hinge(1.0, 2.0), 5, 0.25),
        (exponential(), 10, math.exp(-1)),
        (exponential(1.0), 2, math.exp(-2)),
    ],
)
def test_the_formulas_by_hand(s: Staleness, tau: int, weight: float) -> None:
    assert s(tau) == pytest.approx(weight, rel=1e-12)


def test_a_name_with_its_numbers_gives_the_function() -> None:
    assert staleness_named("polynomial", a=1.0)(4) == pytest.approx(0.2)
    assert staleness_named("hinge", b=2.0)(3) == pytest.approx(1 / 11)
    assert staleness_named("constant")(7) == 1.0


@pytest.mark.parametrize(
    ("name", "a", "b", "says"),
    [
        ("linear", None, None, "'linear': expected one of constant, polynomial, hinge, exponential"),
        ("constant", 0.5, None, "'constant' does not take a"),
        ("polynomial", 0.5, 4.0, "'polynomial' does not take a and b"),
        ("polynomial", -0.5, None, "a = -0.5, expected a finite number of at least 0"),
        ("hinge", 1.0, -1.0, "b = -1.0, expected a finite number of at least 0"),
        ("exponential", float("inf"), None, "a = inf, expected a finite number"),
        ("exponential", float("nan"), None, "a = nan, expected a finite number"),
    ],
)
def test_a_number_that_would_make_staleness_pay_is_refused(
    name: str, a: float | None, b: float | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        staleness_named(name, a, b)  # type: ignore[arg-type]
