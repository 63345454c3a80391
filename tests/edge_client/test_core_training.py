from __future__ import annotations

import random
from itertools import pairwise

import pytest

from fedmq.edge_client.actions import AskLayout, AskPresence, Delete, Follow, Stop, Train
from fedmq.edge_client.core import ClientCore
from tests.edge_client.words import (
    OTHER_RUN,
    accepted,
    connected_core,
    head,
    later,
    offer,
    offline,
    online,
    rejected,
    trained_core,
)


def test_a_device_subscribes_when_it_connects_and_unsubscribes_when_it_trains() -> None:
    core = ClientCore("e" * 32, random.Random(0), [])
    assert core.connected(0.0) == [Follow(True)]
    assert core.head(head(3), True, 0.0) == [Follow(False), Train(head(3))]
    assert core.training == head(3)
    assert core.base_version is None, "nothing has been trained on yet"


def test_while_it_trains_neither_a_head_nor_a_new_connection_nor_time_disturbs_it() -> None:
    core = connected_core()
    core.head(head(0), True, 0.0)
    assert core.head(head(1), True, 1.0) == []
    core.disconnected()
    assert core.connected(2.0) == [], "not subscribed while it trains"
    assert core.presence(online(), 2.0) == []
    assert core.tick(1e6) == []
    assert core.training == head(0)


def test_a_version_is_trained_on_once_and_the_next_at_once() -> None:
    core, _ = trained_core(version=5)
    core.reply(accepted(0), 0.1)
    assert core.head(head(5), True, 0.2) == []
    assert core.head(head(6), True, 0.3) == [Follow(False), Train(head(6))]
    assert core.base_version == 5


def test_after_its_update_is_judged_it_subscribes_again() -> None:
    core, actions = trained_core()
    assert Follow(True) not in actions
    assert core.deadline() == pytest.approx(2.0, abs=0.5)
    answer = core.reply(accepted(0), 0.5)
    assert [type(action) for action in answer] == [Delete, Follow]


@pytest.mark.parametrize("answer", [later(0, 60.0), rejected(0, "late")])
def test_any_answer_that_ends_the_wait_for_the_receipt_makes_it_subscribe(answer: object) -> None:
    core, _ = trained_core()
    assert Follow(True) in core.reply(answer, 0.5)  # type: ignore[arg-type]


def test_a_receipt_that_does_not_come_is_waited_for_no_longer_than_two_seconds() -> None:
    core, _ = trained_core()
    assert Follow(True) not in core.tick(1.9)
    assert Follow(True) in core.tick(2.0)
    assert Follow(True) not in core.tick(3.0)


def test_with_the_aggregator_offline_it_subscribes_as_soon_as_it_has_trained() -> None:
    core = connected_core()
    core.head(head(0), True, 0.0)
    core.presence(offline(), 1.0)
    assert core.trained(offer(0), [], 2.0) == [Follow(True)]


def test_a_head_that_was_on_its_way_does_not_make_it_subscribe_while_it_trains_on_it() -> None:
    core, _ = trained_core(version=0)
    assert core.head(head(1), True, 0.1) == [Follow(False), Train(head(1))]
    assert [type(action) for action in core.reply(accepted(0), 0.2)] == [Delete]
    assert Follow(True) not in core.tick(60.0)


def test_without_a_new_version_it_trains_again_and_waits_twice_as_long_each_time_up_to_an_hour() -> None:
    core, _ = trained_core(retrain_after=10.0)
    now = 0.0
    for again in range(12):
        core.reply(accepted(again), now)
        due = core.deadline()
        assert due is not None
        assert due - now == pytest.approx(min(10.0 * 2**again, 3600.0), rel=0.25)
        assert core.tick(due - 0.001) == []
        assert core.tick(due) == [Follow(False), Train(head(0, retrain_after=10.0))]
        now = due
        core.trained(offer(again + 1), [], now)


def test_a_new_version_makes_the_waits_short_again() -> None:
    core, _ = trained_core(retrain_after=10.0)
    for sequence in (1, 2, 3):
        core.reply(accepted(sequence - 1), 1e6 * sequence)
        core.trained(offer(sequence), [], 1e6 * sequence)
    core.head(head(1, retrain_after=10.0), True, 4e6)
    core.trained(offer(4), [], 4e6)
    core.reply(accepted(3, 4), 4e6)
    due = core.deadline()
    assert due is not None
    assert 7.5 <= due - 4e6 <= 12.5


def test_devices_that_heard_the_same_do_not_train_again_at_the_same_moment() -> None:
    waits = set()
    for seed in range(20):
        core, _ = trained_core(seed=seed)
        core.reply(accepted(0), 0.0)
        waits.add(core.deadline())
    assert len(waits) == 20


def test_a_continuous_plan_trains_again_at_once_on_what_it_knows() -> None:
    core, _ = trained_core(continuous=True)
    core.reply(accepted(0), 0.1)
    assert core.head(head(0, continuous=True), True, 0.2) == [Follow(False), Train(head(0, continuous=True))]


def test_an_older_head_of_the_same_run_is_ignored() -> None:
    core, _ = trained_core(version=5)
    core.reply(accepted(0), 0.0)
    assert core.head(head(4), True, 0.1) == []
    assert core.head(head(6), True, 0.2) == [Follow(False), Train(head(6))]


def test_another_run_starts_over_whatever_its_version() -> None:
    core, _ = trained_core(version=5)
    core.reply(accepted(0), 0.0)
    assert core.head(head(0, run=OTHER_RUN), True, 0.1) == [Follow(False), Train(head(0, run=OTHER_RUN))]


def test_a_finished_run_ends_it_with_code_0() -> None:
    core = connected_core()
    [stop] = core.head(head(7, finished=True), True, 0.0)
    assert isinstance(stop, Stop)
    assert stop.code == 0


@pytest.mark.parametrize("fits", [None, False])
def test_a_model_of_a_layout_that_is_not_known_or_not_its_own_is_not_trained_on(fits: bool | None) -> None:
    core = connected_core()
    assert core.head(head(0), fits, 0.0) == [AskLayout()]
    assert core.training is None


def test_a_failed_job_is_tried_again_on_the_newest_snapshot_after_longer_and_longer_waits() -> None:
    core = connected_core()
    core.head(head(0), True, 0.0)
    now = 0.0
    for failures in range(9):
        assert core.failed(now) == [], "no model is fetched that is not trained on"
        due = core.deadline()
        assert due is not None
        assert due - now == pytest.approx(min(5.0 * 2**failures, 600.0), rel=0.25)
        assert core.tick(due - 0.001) == []
        assert core.tick(due) == [Follow(True)]
        newest = head(failures + 1)
        assert core.head(newest, True, due + 0.1) == [Follow(False), Train(newest)]
        now = due + 0.1
    core.trained(offer(0), [], now)
    core.reply(accepted(0), now)
    core.head(head(100), True, now)
    core.failed(now)
    due = core.deadline()
    assert due is not None
    assert due - now <= 5.0 * 1.25, "a success makes the waits short again"


@pytest.mark.parametrize("connected", [True, False])
def test_after_a_failure_without_a_newer_model_it_tries_the_one_at_hand(connected: bool) -> None:
    core, _ = trained_core(version=3)
    core.reply(accepted(0), 0.0)
    core.head(head(4), True, 1.0)
    if not connected:
        core.disconnected()
    core.failed(10.0)
    assert core.head(head(5), True, 11.0) == [], "not before the wait is over"
    assert [action for action in core.tick(14.9 + 1.3) if action != Follow(True)] == []
    assert Train(head(5)) in core.tick(16.3 + 2.0)


def test_waits_stay_at_their_longest_however_often_it_trains_or_fails() -> None:
    core = connected_core()
    core.head(head(0), True, 0.0)
    for again in range(1100):
        core.trained(offer(again), [again - 1], 1e4 * again)
        core.reply(accepted(again), 1e4 * again)
        core.tick(1e4 * again + 5000.0)
        assert core.training == head(0)
    for again in range(1100, 2200):
        core.failed(1e4 * again)
        core.tick(1e4 * again + 5000.0)
        assert core.training == head(0)


def test_without_a_connection_it_goes_on_training_on_the_last_snapshot() -> None:
    core, _ = trained_core(retrain_after=10.0)
    core.disconnected()
    core.tick(2.0)
    due = core.deadline()
    assert due is not None
    assert core.tick(due) == [Follow(False), Train(head(0, retrain_after=10.0))]


def test_on_a_version_that_it_knows_it_does_not_train_again_while_an_update_of_it_is_on_its_way() -> None:
    core, _ = trained_core(retrain_after=10.0)
    for now in range(1, 1000):
        assert not [action for action in core.tick(float(now)) if isinstance(action, Train)]
    core.reply(accepted(0), 1000.0)
    due = core.deadline()
    assert due is not None
    assert due <= 1012.5
    assert core.tick(due) == [Follow(False), Train(head(0, retrain_after=10.0))]


def test_a_continuous_plan_trains_again_whatever_is_on_its_way() -> None:
    core, _ = trained_core(continuous=True)
    core.tick(2.0)
    assert core.head(head(0, continuous=True), True, 2.0) == [Follow(False), Train(head(0, continuous=True))]
    assert Follow(True) in [*core.trained(offer(1), [], 3.0), *core.tick(5.0)]


def test_with_two_updates_on_their_way_it_takes_no_model_which_would_be_old_when_it_counts() -> None:
    core, _ = trained_core()
    core.tick(2.0)
    core.head(head(1), True, 3.0)
    core.trained(offer(1, 1), [], 4.0)
    for now in range(5, 1000):
        assert not [action for action in core.tick(float(now)) if isinstance(action, Follow | Train)]
        due = core.deadline()
        assert due is None or due > now, "it sleeps meanwhile"
    assert Follow(True) in core.reply(accepted(0), 1000.0)


@pytest.mark.parametrize("gone", ["aggregator", "its disk", "connection"])
def test_with_nobody_to_take_them_updates_on_their_way_hold_nothing_up(gone: str) -> None:
    core, _ = trained_core(retrain_after=10.0)
    core.tick(2.0)
    core.head(head(1, retrain_after=10.0), True, 3.0)
    core.trained(offer(1, 1), [], 4.0)
    if gone == "connection":
        core.disconnected()
    elif gone == "aggregator":
        core.presence(offline(), 5.0)
    else:
        core.presence(online().model_copy(update={"detail": "the commit failed: is the disk full?"}), 5.0)
    core.tick(6.0)
    assert Train(head(1, retrain_after=10.0)) in core.tick(17.0)


def test_what_the_broker_should_keep_but_did_not_send_is_asked_for_again_less_and_less_often() -> None:
    core = ClientCore("e" * 32, random.Random(0), [])
    core.connected(0.0)
    asked = [0.0]
    for _ in range(10):
        due = core.deadline()
        assert due is not None
        assert core.tick(due) == [AskPresence(), Follow(True)]
        asked.append(due)
    waits = [after - before for before, after in pairwise(asked)]
    assert 22.5 <= waits[0] <= 37.5
    assert 450 <= waits[-1] <= 750

    core.presence(online(), asked[-1])
    due = core.deadline()
    assert due is not None
    assert core.tick(due) == [Follow(True)], "only the model is missing now"
    core.head(head(0), True, due)
    assert core.deadline() is None
    core.presence(offline(), due)
    due = core.deadline()
    assert due is not None
    assert core.tick(due) == [AskPresence()]
