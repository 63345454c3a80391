"""The synchronous baseline: who is waited for, and until when."""

from __future__ import annotations

from typing import Any

import pytest

from fedmq.aggregator.judged import Judged
from fedmq.aggregator.state import VersionRecord
from fedmq.aggregator.strategies import fedavg
from tests.aggregator.small_run import SmallRun, offer_of


def cohort_of(*clients: str, **settings: Any) -> SmallRun:
    """A run that waits for these clients, which are online."""
    run = SmallRun(fedavg(**({"clients": len(clients)} | settings)), [0.0])
    for client in clients:
        run.core.presence(client, True, 0.0)
    return run


def pass_to(run: SmallRun, seconds: float) -> None:
    """Let time pass, and show what came of it."""
    run.seconds = seconds
    run.core.tick(seconds)
    run.publish()


def reason(receipt: object) -> str | None:
    assert isinstance(receipt, Judged)
    return receipt.reason


def versions(run: SmallRun) -> list[VersionRecord]:
    return run.core.news.versions


def test_a_cohort_closes_when_all_of_its_updates_are_in() -> None:
    run = cohort_of("alice", "bob")
    run.deliver("alice", 1.0)
    assert run.state.version == 0
    run.deliver("bob", 3.0)
    assert (run.state.version, run.weights) == (1, [2.0])
    assert [(record.why, record.buffer_size, len(record.updates)) for record in versions(run)] == [("cohort", 2, 2)]


@pytest.mark.parametrize("refused_first", [True, False])
def test_who_was_refused_is_not_waited_for_and_is_in_the_next_cohort(refused_first: bool) -> None:
    run = cohort_of("alice", "bob", "carol")
    if refused_first:
        assert reason(run.judge("bob", [float("nan")])) == "not_finite"
    run.deliver("alice", 1.0)
    run.deliver("carol", 3.0)
    if not refused_first:
        assert run.state.version == 0
        assert reason(run.judge("bob", [float("nan")])) == "not_finite"
        run.publish()
    assert (run.state.version, run.weights) == (1, [2.0])
    run.deliver("alice", 1.0)
    run.deliver("carol", 1.0)
    assert run.state.version == 1
    run.deliver("bob", 1.0)
    assert run.state.version == 2


def test_whoever_is_refused_for_a_lie_or_another_version_or_run_is_waited_for() -> None:
    run = cohort_of("alice", "bob")
    run.deliver("alice", 1.0)
    assert reason(run.judge("bob", [1.0], base_version=7)) == "unknown_base"
    assert reason(run.judge("bob", [1.0], run="f" * 32)) == "wrong_run"
    offer, body = offer_of([1.0], run.layout, client_id="bob", sequence=9)
    assert reason(run.core.judge("mallory", offer, body, 5.0)) == "wrong_client"
    assert run.state.version == 0
    run.deliver("bob", 3.0)
    assert (run.state.version, run.weights) == (1, [2.0])


def test_who_was_refused_and_delivers_after_all_counts() -> None:
    run = cohort_of("alice", "bob", "carol")
    assert reason(run.judge("bob", [float("nan")])) == "not_finite"
    run.deliver("bob", 3.0)
    run.deliver("alice", 1.0)
    assert run.state.version == 0
    run.deliver("carol", 2.0)
    assert (run.state.version, run.weights) == (1, [2.0])


def test_no_cohort_is_frozen_before_enough_clients_are_online() -> None:
    run = SmallRun(fedavg(clients=2), [0.0])
    run.core.presence("alice", True, 0.0)
    run.deliver("alice", 1.0)
    assert run.state.version == 0
    run.core.presence("bob", True, 1.0)
    run.deliver("bob", 3.0)
    assert run.state.version == 1


def test_who_comes_after_the_freezing_waits_for_the_next_version() -> None:
    run = cohort_of("alice", "bob")
    run.core.presence("carol", True, 1.0)
    assert reason(run.judge("carol", [9.0])) == "late"
    run.deliver("alice", 1.0)
    run.deliver("bob", 1.0)
    run.deliver("carol", 1.0)  # a member of the cohort of version 1
    assert run.state.version == 1


def test_a_cohort_is_frozen_anew_for_each_version() -> None:
    run = cohort_of("alice", "bob", clients=1)
    run.core.presence("bob", False, 0.0)
    run.deliver("alice", 1.0)
    assert run.state.version == 1
    run.deliver("alice", 1.0)
    assert run.state.version == 2


@pytest.mark.parametrize("base", [0, 1])
def test_what_was_trained_from_another_version_is_late(base: int) -> None:
    run = cohort_of("alice", "bob")
    for _ in range(2):
        run.deliver("alice", 1.0)
        run.deliver("bob", 1.0)
    assert reason(run.judge("alice", [9.0], base_version=base)) == "late"


def test_a_second_update_of_one_client_is_late() -> None:
    run = cohort_of("alice", "bob")
    run.deliver("alice", 1.0)
    assert reason(run.judge("alice", [9.0])) == "late"


def test_a_cohort_closes_when_those_that_are_missing_are_offline() -> None:
    run = cohort_of("alice", "bob", "carol")
    run.deliver("alice", 3.0)
    run.core.presence("bob", False, 1.0)
    assert run.state.version == 0
    run.core.presence("carol", False, 2.0)
    assert (run.state.version, run.weights) == (1, [3.0])
    assert versions(run)[0].why == "offline"


def test_a_cohort_of_which_nothing_came_waits_even_if_all_are_offline() -> None:
    run = cohort_of("alice", "bob")
    for client in ("alice", "bob"):
        run.core.presence(client, False, 1.0)
    assert run.state.version == 0


def test_a_cohort_closes_at_its_deadline_with_what_has_come() -> None:
    run = cohort_of("alice", "bob", deadline=60.0)
    run.deliver("alice", 1.0, now=10.0)
    assert run.core.deadline() == 60.0
    run.core.tick(59.0)
    assert run.state.version == 0
    run.core.tick(60.0)
    assert (run.state.version, versions(run)[0].why) == (1, "deadline")


def test_a_deadline_that_passes_before_anything_came_is_nothing_to_wake_up_for() -> None:
    run = cohort_of("alice", "bob", deadline=60.0)
    run.core.tick(100.0)
    assert run.core.deadline() is None
    run.deliver("alice", 1.0, now=200.0)
    assert (run.state.version, versions(run)[0].why) == (1, "deadline")


def test_without_a_deadline_of_its_own_a_cohort_waits_ten_times_as_long_as_half_of_it_took() -> None:
    run = cohort_of("alice", "bob", "carol", "dave")
    run.deliver("alice", 1.0, now=5.0)
    assert run.core.deadline() == 3600.0
    run.deliver("bob", 1.0, now=20.0)
    assert run.core.deadline() == 200.0
    run.deliver("carol", 1.0, now=190.0)
    run.core.tick(199.0)
    assert run.state.version == 0
    run.core.tick(200.0)
    assert (run.state.version, versions(run)[0].why) == (1, "deadline")


def test_quick_cohorts_wait_a_minute_and_slow_ones_ten_times_as_long_as_their_first() -> None:
    run = cohort_of("alice", "bob")
    run.deliver("alice", 1.0, now=0.1)
    assert run.core.deadline() == 60.0
    run = cohort_of("alice", "bob", "carol")
    run.deliver("alice", 1.0, now=7200.0)
    assert run.core.deadline() == 72_000.0


@pytest.mark.parametrize("settings", [{}, {"deadline": 60.0}, {"over_selection": 1.3}])
def test_one_that_is_online_and_never_delivers_costs_a_single_deadline(settings: dict[str, float]) -> None:
    run = cohort_of("alice", "bob", "carol", "silent", **settings)
    for client in ("alice", "bob", "carol"):
        run.deliver(client, 1.0, now=5.0)
    pass_to(run, 60.0)
    assert run.state.version == 1
    for second in range(100, 110):
        for client in ("alice", "bob", "carol"):
            if run.state.version == second - 99:
                run.deliver(client, 1.0, now=float(second))
    assert run.state.version == 11
    assert run.weights == [11.0]


def test_who_let_a_deadline_pass_counts_in_time_and_is_waited_for_again() -> None:
    run = cohort_of("alice", "bob", "carol", deadline=60.0)
    run.deliver("alice", 1.0, now=5.0)
    run.deliver("bob", 1.0, now=6.0)
    pass_to(run, 60.0)
    run.deliver("carol", 4.0, now=70.0)
    run.deliver("alice", 1.0, now=71.0)
    assert run.state.version == 1
    run.deliver("bob", 1.0, now=72.0)
    assert (run.state.version, run.weights) == (2, [3.0])
    run.deliver("alice", 1.0, now=73.0)
    run.deliver("bob", 1.0, now=74.0)
    assert run.state.version == 2


def test_who_comes_too_late_is_at_work_and_waited_for_again() -> None:
    run = cohort_of("alice", "bob", deadline=60.0)
    run.deliver("alice", 1.0, now=5.0)
    pass_to(run, 60.0)
    assert reason(run.judge("bob", [1.0], base_version=0, now=61.0)) == "late"
    run.deliver("alice", 1.0, now=65.0)
    assert run.state.version == 1
    run.deliver("bob", 1.0, now=66.0)
    assert run.state.version == 2


@pytest.mark.parametrize(("members", "enough"), [(13, 10), (10, 8), (4, 4), (1, 1)])
def test_with_over_selection_the_first_updates_close_the_cohort(members: int, enough: int) -> None:
    clients = [f"client-{number}" for number in range(members)]
    run = cohort_of(*clients, over_selection=1.3)
    for delivered, client in enumerate(clients[:enough], start=1):
        run.deliver(client, 1.0)
        assert run.state.version == (1 if delivered == enough else 0)
    for client in clients[enough:]:
        assert reason(run.judge(client, [9.0], base_version=0)) == "late"


def test_a_refused_update_is_not_a_delivery() -> None:
    run = cohort_of("alice", "bob")
    assert reason(run.judge("bob", [float("nan")])) == "not_finite"
    run.core.tick(1e6)
    assert run.state.version == 0
    run.deliver("alice", 1.0)
    assert [len(record.updates) for record in versions(run)] == [1]
