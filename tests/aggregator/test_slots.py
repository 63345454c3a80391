"""One update of each client in a buffer; the next one waits, and nothing that was accepted is replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.config import AggregatorSettings
from fedmq.aggregator.judged import Judged
from fedmq.aggregator.strategies import Strategy, fedbuff, median
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.messages import Later
from tests.aggregator import test_commits
from tests.aggregator.small_run import SmallRun, offer_of, plain_fedbuff
from tests.aggregator.test_commits import LAYOUT, kitchen
from tests.generators import unhurried

FIVE_MINUTES = 300.0


def slots(buffer_size: int = 2) -> SmallRun:
    return SmallRun(plain_fedbuff(buffer_size, one_per_client=True))


def test_a_second_update_waits_and_is_taken_after_the_version() -> None:
    run = slots()
    run.deliver("alice", 1.0)
    second = run.judge("alice", [5.0], sequence=1)
    assert isinstance(second, Later)
    assert second.reason == "slot"
    assert 1 <= second.seconds <= 60
    run.deliver("bob", 3.0)
    assert run.weights == [2.0]  # neither was replaced by 5
    accepted = run.judge("alice", [5.0], sequence=1, base_version=0)
    assert isinstance(accepted, Judged)
    assert accepted.verdict == "accepted"


def test_a_wait_leaves_no_trace_and_does_not_ask_for_bytes() -> None:
    run = slots()
    run.deliver("alice", 1.0)
    run.core.take()
    judged, rejected = run.core.judged, dict(run.state.rejected)
    offer, _ = offer_of([5.0], run.layout, sequence=1)
    assert isinstance(run.core.judge("alice", offer, memoryview(b""), 3.0), Later)
    assert run.state.ledger.find("alice", offer.update, offer.digest, offer.base_version) is None
    assert (run.core.judged, dict(run.state.rejected)) == (judged, rejected)
    assert not run.core.take().judged


def test_an_update_that_has_its_verdict_gets_it_again_and_one_that_cannot_be_admitted_is_refused_at_once() -> None:
    run = slots()
    first = run.deliver("alice", 1.0)
    assert run.judge("alice", [1.0], sequence=0) == first
    refused = run.judge("alice", [1.0], run="f" * 32)
    assert isinstance(refused, Judged)
    assert refused.reason == "wrong_run"


def test_without_slots_a_client_may_have_several() -> None:
    run = SmallRun(plain_fedbuff(2))
    run.deliver("alice", 1.0)
    run.deliver("alice", 2.0)
    assert run.state.version == 1


def test_fewer_clients_than_k_do_not_wait_for_ever() -> None:
    run = slots(10)
    run.deliver("alice", 1.0, now=0.0)
    run.deliver("bob", 1.0, now=1.0)
    assert run.core.deadline() == FIVE_MINUTES
    run.core.tick(FIVE_MINUTES - 1)
    assert run.state.version == 0
    run.core.tick(FIVE_MINUTES)
    assert run.state.version == 1
    assert run.core.news.versions[-1].why == "timer"


def test_however_fast_a_client_is_and_whatever_it_says_of_its_base_it_is_no_more_than_half() -> None:
    run, bases, accepted = SmallRun(fedbuff(one_per_client=True)), {f"slow-{n}": 0 for n in range(5)}, Counter[str]()
    for client in bases:
        run.deliver(client, 0.0)
    for second in range(10, 1000):
        for client in ["fast", f"slow-{second % 5}"] if second % 2 else ["fast"]:
            answer = run.judge(
                client, [0.0], now=float(second), base_version=bases.get(client, run.state.version), sequence=second
            )
            accepted[client] += isinstance(answer, Judged)
            bases |= {client: run.state.version} if client in bases else {}
            run.core.tick(float(second))
    assert run.state.tempo.buffer_size == 2
    assert accepted["fast"] <= 0.5 * accepted.total() + 1
    assert sum(accepted[f"slow-{n}"] for n in range(5)) == 495


def test_of_two_clients_none_waits_for_the_other() -> None:
    run = SmallRun(fedbuff(one_per_client=True))
    run.deliver("slow", 1.0)
    for _ in range(20):
        run.deliver("fast", 1.0)
    assert run.state.version == 21


def test_a_client_alone_makes_no_versions_as_quickly_as_the_timer_closes_them() -> None:
    run = slots(3)
    for second in range(30):
        run.deliver(f"client-{second % 3}", 1.0, now=float(second))
    run.deliver("alone", 1.0, now=30.0)
    assert run.core.deadline() == 30.0 + FIVE_MINUTES
    run.deliver("another", 1.0, now=31.0)
    assert run.core.deadline() == 30.0 + 6.0  # twice the second between two, times three


def test_a_client_that_is_left_alone_does_not_wait_ever_longer() -> None:
    run, now = slots(3), 30.0
    for second in range(30):
        run.deliver(f"client-{second % 3}", 1.0, now=float(second))
    for _ in range(50):
        run.deliver("alone", 1.0, now=now)
        due = run.core.deadline()
        assert due == now + FIVE_MINUTES
        run.core.tick(due)
        now = due + 1.0
    assert run.state.tempo.flush_after() == 6.0


@pytest.mark.parametrize("strategy", [fedbuff, median])
def test_a_single_slot_which_is_always_free_is_refused(strategy: Callable[..., Strategy]) -> None:
    with pytest.raises(ConfigError, match="buffer_size"):
        strategy(one_per_client=True, buffer_size=1)
    strategy(one_per_client=True, buffer_size=3)


def test_slots_without_a_timer_are_refused() -> None:
    with pytest.raises(ConfigError, match="one_per_client needs flush_timer"):
        fedbuff(one_per_client=True, flush_timer=False)


@pytest.mark.parametrize("strategy", ["fedasync", "fedasync_delta", "fedavg"])
def test_what_has_no_buffer_has_no_slots(strategy: str) -> None:
    with pytest.raises(ValueError, match="has no setting 'one_per_client'"):
        AggregatorSettings(strategy=strategy, one_per_client=True)


@unhurried
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 100)), max_size=60), st.integers(2, 6))
def test_in_any_order_no_version_has_two_updates_of_one_client(offers: list[tuple[int, float]], k: int) -> None:
    run, now = slots(k), 0.0
    for number, (client, passing) in enumerate(offers):
        now += passing
        run.core.tick(now)
        run.judge(f"client-{client}", [1.0], sequence=number, now=now)
    for record in run.core.news.versions:
        clients = [folded.client_id for folded in record.updates]
        assert len(clients) == len(set(clients))


def test_the_service_tells_a_client_to_wait_and_takes_the_update_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_commits, "STRATEGY", plain_fedbuff(2, one_per_client=True))
    with kitchen(tmp_path) as run:
        run.offer(0)
        run.until(lambda: 0 in run.receipts)
        run.offer(1)
        run.until(lambda: run.later)
        assert {(later.update.sequence, later.reason) for later in run.later} == {(1, "slot")}
        assert list(run.receipts) == [0]
    with kitchen(tmp_path) as run:  # the slot is taken after a restart too
        run.offer(1)
        run.until(lambda: run.later)
        offer, body = offer_of(np.ones(4, np.float32), LAYOUT, client_id="bob")
        run.service._core.judge("bob", offer, body, run.service.now())
        run.offer(1)
        run.until(lambda: 1 in run.receipts)
