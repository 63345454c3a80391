"""A version that a rule makes of many updates is made in a thread: the link is served meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fedmq.aggregator import verdicts
from fedmq.aggregator.admission import Rules
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.strategies import median
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Receipt
from fedmq.schemas.wire import encode
from fedmq.transport.link import Message
from tests.aggregator.door import CLIENT, LAYOUT, TOPICS, VERSION, Door
from tests.aggregator.small_run import RUN, offer_of

FOUR = 4 * LAYOUT.size * 4  # bytes of so many updates


class Slow:
    """A median that takes until it `goes_on`, and an aggregator to whom four updates are many."""

    def __init__(self, folder: Path, buffer_size: int) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.by: list[str] = []  # which threads have worked
        strategy = median(buffer_size=buffer_size, one_per_client=True)
        assert strategy.rule is not None
        combine = strategy.rule.combine

        def slowly(rows: Sequence[Vector], weights: Sequence[float], parameter_size: int) -> Vector:
            self.by.append(threading.current_thread().name)
            self.begun.set()
            assert self.goes_on.wait(20)
            return combine(rows, weights, parameter_size)

        self.door = Door(
            folder, Rules(RUN, LAYOUT), strategy=replace(strategy, rule=replace(strategy.rule, combine=slowly))
        )

    def sends(self, name: str) -> None:
        offer, body = offer_of([1.0] * 4, LAYOUT, client_id=name, base_version=VERSION)
        self.door.service.handle(Message(TOPICS.update(name), encode(offer, body)))

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.door.work(0.1)
            assert time.monotonic() < deadline

    @property
    def busy(self) -> bool:
        return self.door.service._verdicts.busy


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Slow]:
    monkeypatch.setattr(verdicts, "LARGE_BYTES", FOUR - 1)
    slow = Slow(tmp_path, request.param)
    yield slow
    slow.goes_on.set()
    slow.until(lambda: not slow.busy)


@pytest.mark.parametrize("slow", [4], indirect=True)
def test_the_update_that_fills_its_buffer_is_judged_aside_and_others_wait_for_their_turn(slow: Slow) -> None:
    for name in ("alice", "bob", "carol", CLIENT):
        assert not slow.busy
        slow.sends(name)  # else it would wait here
    assert slow.begun.wait(20)
    assert slow.busy
    slow.sends("dave")
    slow.door.work()
    slow.goes_on.set()
    slow.until(lambda: slow.door.state.accepted == 5)
    assert slow.door.state.version == VERSION + 1
    slow.until(lambda: slow.door.answers)
    (receipt,) = slow.door.answers
    assert isinstance(receipt, Receipt)
    assert receipt.verdict == "accepted"


@pytest.mark.parametrize("slow", [9], indirect=True)
def test_a_version_by_the_timer_is_made_aside(slow: Slow) -> None:
    for name in ("alice", "bob", "carol", "dave"):
        slow.sends(name)
    slow.door.work(400.0)  # else it would wait here
    assert slow.begun.wait(20)
    assert slow.busy
    deadline = slow.door.service.deadline()
    assert deadline is None or deadline > slow.door.service.now()
    slow.goes_on.set()
    slow.until(lambda: slow.door.state.version == VERSION + 1)


@pytest.mark.parametrize("slow", [9], indirect=True)
def test_the_last_version_of_a_goal_that_the_aggregator_measures_is_made_aside(slow: Slow) -> None:
    slow.door.core.goal = Goal(target=0.9, source="aggregator")
    for name in ("alice", "bob", "carol", "dave"):
        slow.sends(name)
    slow.door.core.measured(VERSION, {"accuracy": 0.95})
    slow.door.work(0.1)  # else it would wait here
    assert slow.begun.wait(20)
    assert slow.busy
    slow.goes_on.set()
    slow.until(lambda: slow.door.state.finished == "accuracy 0.9500")
    assert slow.door.state.version == VERSION + 1
    assert "MainThread" not in slow.by


@pytest.mark.parametrize("slow", [9], indirect=True)
def test_what_is_few_is_done_at_once(slow: Slow) -> None:
    slow.goes_on.set()
    for name in ("alice", "bob", "carol"):
        slow.sends(name)
    slow.door.work(400.0)
    assert slow.door.state.version == VERSION + 1
    assert slow.by == ["MainThread"]


@pytest.mark.parametrize("slow", [9], indirect=True)
def test_a_rule_that_fails_aside_ends_the_aggregator_as_it_does_otherwise(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(now: float) -> None:
        if slow.door.core.closing_bytes(now):
            assert threading.current_thread() is not threading.main_thread()
            raise MemoryError("no room for so many")

    for name in ("alice", "bob", "carol", "dave"):
        slow.sends(name)
    slow.door.service.tick()
    monkeypatch.setattr(slow.door.core, "tick", fails)
    with pytest.raises(MemoryError, match="no room"):
        slow.door.work(400.0)
    monkeypatch.undo()
