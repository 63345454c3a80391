"""A broker that ends by itself: how often it is started again, and when that is given up."""

from __future__ import annotations

import pytest

from fedmq.broker_config.restarts import MOST_ENDS, SOON_SECONDS, Restarts


def test_waits_double_until_it_is_given_up() -> None:
    restarts = Restarts(0.0)
    waits = []
    now = 0.0
    while (wait := restarts.ended(now)) is not None:
        waits.append(wait)
        now += wait
        restarts.started(now)
    assert waits == [1, 2, 4, 8]
    assert len(waits) == MOST_ENDS - 1


def test_a_start_that_fails_is_an_end_too() -> None:
    restarts = Restarts(0.0)
    assert [restarts.ended(1000.0 + second) for second in range(5)] == [1, 2, 4, 8, None]


@pytest.mark.parametrize("lived", [SOON_SECONDS + 1, 1e6])
def test_ends_that_are_far_apart_are_no_reason_to_give_up(lived: float) -> None:
    restarts = Restarts(0.0)
    now = 0.0
    for _ in range(20):
        now += lived
        assert restarts.ended(now) == 1
        restarts.started(now)
