"""What the status says of the limits in force."""

from __future__ import annotations

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.allowance import Allowance
from fedmq.aggregator.clipping import Bound
from fedmq.aggregator.limits import limits
from fedmq.aggregator.quarantine import QuarantineRule
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
