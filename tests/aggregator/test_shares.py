"""What one device's updates cost the aggregator, whatever it sends: few bytes, and seconds to decode them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from fedmq.aggregator import core as core_module
from fedmq.aggregator.admission import Rules, admit_body
from fedmq.aggregator.allowance import Allowance
from fedmq.aggregator.clipping import Bound
from fedmq.aggregator.shares import Shares
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Later, Need, Offer, Receipt
from fedmq.schemas.wire import encode
from fedmq.transport.link import Message
from tests.aggregator.door import CLIENT, LAYOUT, TOPICS, Door
from tests.aggregator.small_run import RUN, offer_of, plain_fedbuff


class Costly:
    """An aggregator to whom each body takes so long to decode.

    Attributes:
        spent: seconds that were spent on bodies.

    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.1, **rules: object) -> None:
        self.door = Door(folder, Rules(RUN, LAYOUT, **rules), strategy=plain_fedbuff(1000))  # type: ignore[arg-type]
        self.spent = 0.0
        time = self.door.broker.time

        def decode(offer: Offer, body: memoryview, rules: Rules, digest: str | None) -> Iterable[tuple[int, Vector]]:
            self.spent += seconds
            time.step(time.now + seconds)
            return admit_body(offer, body, rules, digest)

        monkeypatch.setattr(core_module, "admit_body", decode)

    def flood(self, for_seconds: float, value: float = 1.0) -> float:
        """A hundred offers a second, each with its bytes; which part of the time was spent on them."""
        time, service, before = self.door.broker.time, self.door.service, self.spent
        begun, sent = time.now, 0
        while time.now < begun + for_seconds:
            if sent < (time.now - begun) * 100:
                sent += 1
                service.handle(Message(TOPICS.update(CLIENT), self.door.offer(value)))
            else:
                time.step(time.now + 0.01)
                service.tick()
        return (self.spent - before) / (time.now - begun)

    def somebody_else(self) -> None:
        self.door.service.handle(Message(TOPICS.update("bob"), encode(Need(run=RUN, version=1))))


def asked(door: Door, payload: bytes) -> str | None:
    """Why what is offered here is refused or put off, however long it takes; None if it is accepted."""
    door.answers.clear()
    door.say(payload)
    door.work()
    (answer,) = door.answers
    assert isinstance(answer, Receipt | Later)
    return answer.reason


def test_who_is_over_its_rate_has_nothing_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costly = Costly(tmp_path, monkeypatch, allowance=Allowance(per_minute=1.0))
    assert costly.flood(50.0) < 0.01
    state = costly.door.state
    assert state.accepted == 1
    assert state.later["rate"] > 1000
    assert state.rejected.total() == 0


def test_hostile_content_counts_when_its_turn_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costly = Costly(tmp_path, monkeypatch, allowance=Allowance(per_minute=1.0))
    door = costly.door
    assert asked(door, door.offer()) is None
    hostile = door.offer(float("nan"))
    assert asked(door, hostile) == "rate"
    door.work(60.0)
    assert asked(door, hostile) == "not_finite"


def test_updates_that_are_slow_to_decode_leave_half_of_the_time_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costly = Costly(tmp_path, monkeypatch)
    costly.somebody_else()
    assert costly.flood(100.0) < 0.55
    assert costly.door.state.accepted > 300
    assert costly.door.state.later["busy"] > 100


def test_what_is_refused_takes_a_tenth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costly = Costly(tmp_path, monkeypatch, longest=Bound(norm=1.0))
    costly.somebody_else()
    assert costly.flood(100.0, value=9.0) < 0.12
    assert costly.door.state.rejected["norm_bound"] > 50


def test_who_has_its_share_is_told_so_and_what_needs_no_bytes_is_answered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costly = Costly(tmp_path, monkeypatch, seconds=30.0)
    costly.somebody_else()
    door = costly.door
    first = door.offer()
    assert asked(door, first) is None
    again = door.offer()
    assert asked(door, again) == "busy"
    (later,) = door.answers
    assert isinstance(later, Later)
    assert 25.0 < later.seconds < 30.0  # it was at work for as long
    assert costly.spent == 30.0
    assert asked(door, door.offer(run="f" * 32)) == "wrong_run"
    assert asked(door, first) is None  # its verdict, again
    door.work(later.seconds)
    assert asked(door, again) is None


def test_one_device_alone_at_the_pace_of_a_device_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costly = Costly(tmp_path, monkeypatch, seconds=10.0)
    door = costly.door
    for _ in range(100):
        assert asked(door, door.offer()) is None
        door.work(2.0)  # for training and encoding all these numbers
    assert door.state.later.total() == 0


def test_devices_that_share_the_work_never_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costly = Costly(tmp_path, monkeypatch, seconds=1.0)
    door = costly.door
    for sequence in range(200):
        for name in ("alice", "bob"):
            offer, body = offer_of([1.0] * 4, LAYOUT, client_id=name, base_version=20, sequence=sequence)
            door.service.handle(Message(TOPICS.update(name), encode(offer, body)))
        door.work(0.1)
    assert door.state.accepted == 400


def test_a_version_is_the_work_of_all_who_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT), strategy=plain_fedbuff(10))
    make = door.core._make_version

    def slowly(why: str, now: float) -> None:
        door.broker.time.step(door.broker.time.now + 10.0)
        make(why, now)

    monkeypatch.setattr(door.core, "_make_version", slowly)
    door.service.handle(Message(TOPICS.update("bob"), encode(Need(run=RUN, version=1))))
    for _ in range(12):
        assert asked(door, door.offer()) is None
    assert door.state.version == 21


def test_who_was_away_for_long_has_all_of_its_share_and_who_was_heard_long_ago_is_no_other() -> None:
    shares = Shares()
    shares.heard("bob", 0.0)
    shares.heard("alice", 1.0)
    shares.spent("alice", 10.0, 1.0, refused=False)
    assert shares.wait("alice", 1.0) == pytest.approx((10.0 - 2.0 + 0.05) / 0.5)
    assert shares.wait("bob", 1.0) == 0.0
    assert shares.wait("alice", 18.0) == 0.0
    shares.heard("alice", 700.0)
    shares.spent("alice", 10.0, 700.0, refused=False)
    assert shares.wait("alice", 700.0) == pytest.approx((10.0 - 2.0 + 0.05) / 0.9)
    assert shares.wait("alice", 700.0 + shares.wait("alice", 700.0)) == pytest.approx(0.0)
