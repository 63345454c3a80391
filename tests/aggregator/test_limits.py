"""What the status says of the limits in force."""

from __future__ import annotations

import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.allowance import Allowance
from fedmq.aggregator.clipping import Bound
from fedmq.aggregator.limits import limits, outpaced
from fedmq.aggregator.quarantine import QuarantineRule
from fedmq.aggregator.strategies import STRATEGIES, Strategy, fedasync, fedavg, fedbuff
from fedmq.schemas.layout import Entry, Layout

LAYOUT = Layout((Entry("w", (4,)),))


def test_each_limit_is_said_and_none_that_is_not_there() -> None:
    assert limits(Rules("a" * 32, LAYOUT), None) == "an update takes 65,552 bytes at most"
    rules = Rules(
        "a" * 32,
        LAYOUT,
        frozenset(("2", "1")),
        20,
        Bound(5.0, 3.0),
        Allowance(6.0, 1000),
        QuarantineRule(20),
    )
    assert limits(rules, Bound(medians=2.5)).split("; ") == [
        "an update takes 65,552 bytes at most",
        "of task version 1 or 2",
        "no staler than 20 versions",
        "refused beyond a norm of 5 or 3 times the clients' median",
        "clipped to a norm of 2.5 times the clients' median",
        "of each client 6 updates a minute and 1,000 updates a day count, more wait",
        "after 20 hostile messages a client is not heard for 3600 s",
    ]


def test_only_what_is_allowed_by_the_minute_is_said_of_the_minute() -> None:
    said = limits(Rules("a" * 32, LAYOUT, allowance=Allowance(per_minute=0.5)), Bound(norm=1.0))
    assert said.endswith("clipped to a norm of 1; of each client 0.5 updates a minute count, more wait")


def test_however_many_task_versions_there_are_a_message_takes_them() -> None:
    said = limits(Rules("a" * 32, LAYOUT, frozenset(f"version-{n}" for n in range(1000))), None)
    assert len(said) == 1000
    assert said.endswith("…")


@pytest.mark.parametrize(
    ("strategy", "bound", "rate", "said"),
    [
        (fedbuff(), 20, None, "set one_per_client, or client_updates_per_minute to at most 10 "),
        (fedbuff(), 20, 11.0, "at most 10 "),
        (fedbuff(), 20, 10.0, None),
        (fedbuff(buffer_size=10), 20, 100.0, None),
        (fedbuff(buffer_size=10), 20, 101.0, "at most 100 "),
        (fedbuff(one_per_client=True), 20, None, None),
        (fedbuff(), None, None, None),
        (fedasync(), 20, 240.0, "set client_updates_per_minute to at most 10 "),
        (fedavg(), 20, None, None),
    ],
)
def test_a_bound_on_staleness_that_one_device_can_push_others_beyond_is_warned_of(
    strategy: Strategy, bound: int | None, rate: float | None, said: str | None
) -> None:
    warned = outpaced(Rules("a" * 32, LAYOUT, max_staleness=bound, allowance=Allowance(rate)), strategy)
    assert (warned is None) if said is None else (warned is not None and said in warned)


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_is_warned_of_as_it_is(name: str) -> None:
    assert outpaced(Rules("a" * 32, LAYOUT), STRATEGIES[name]()) is None
