"""Whose messages are read, and whose do not even come."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fedmq.aggregator import room
from fedmq.aggregator.admission import Rules
from fedmq.aggregator.attention import Attention
from fedmq.aggregator.sparing import Sparing
from fedmq.attentive_link import AttentiveLink
from fedmq.schemas.messages import ClientStatus, Need, Part
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.transport.link import Message
from fedmq.transport.memory import MemoryBroker, MemoryLink
from tests.aggregator.door import CLIENT, LAYOUT, TOPICS, Door, header_of
from tests.aggregator.small_run import RUN, plain_fedbuff

KNOWN = frozenset(("alice", "bob", "mallory"))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_leads_nowhere_is_read_so_often_and_then_now_and_then() -> None:
    clock = Clock()
    attention = Attention(clock)

    def read(seconds: float, client_id: str = "mallory") -> int:
        """Of a thousand messages a second, all of which lead nowhere."""
        count, until = 0, clock.now + seconds
        while clock.now < until:
            if attention.reads(client_id):
                count += 1
                attention.wasted(client_id)
            clock.now += 0.001
        return count

    assert 200 <= read(1.0) <= 260
    assert 480 <= read(10.0) <= 520
    unread = attention.take()
    assert list(unread) == [("mallory", "rate")]
    assert 10_200 <= unread["mallory", "rate"] <= 10_400
    assert attention.take() == {}
    assert attention.reads("alice")
    clock.now += 20
    assert 200 <= read(1.0) <= 260


def test_whose_updates_count_may_be_as_fast_as_it_can() -> None:
    attention = Attention(Clock())
    assert all(attention.reads("alice") for _ in range(100_000))


def test_whose_updates_in_parts_count_may_be_as_fast_as_it_can_too(tmp_path: Path) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT))
    full = door.service._door._attention._wasted.left(CLIENT, door.broker.time.now)
    for _ in range(400):
        whole = door.offer()
        offer = header_of(whole).model_copy(update={"number": 1})
        part = Part(run=RUN, update=offer.update, digest=offer.digest, offset=0, number=2)
        door.say(encode(offer), encode(part, whole[-offer.size :]), seconds=0.002)
    assert door.state.accepted == 400
    assert door.service._door._attention._wasted.left(CLIENT, door.broker.time.now) == full


def test_what_is_not_signed_has_a_budget_of_its_own() -> None:
    attention = Attention(Clock())
    for _ in range(399):
        attention.forged("alice")
    assert attention.reads("alice")
    attention.forged("alice")
    assert not attention.reads("alice")


def test_who_floods_is_shunned_twice_as_long_each_time_and_forgiven_when_it_was_quiet() -> None:
    clock = Clock()
    attention = Attention(clock)
    shunned = []
    for _ in range(8):
        begun = clock.now
        attention.rest("mallory", 10.0, "rate")
        for _ in range(100):
            assert not attention.reads("mallory")
        while "mallory" in attention.shunned():
            clock.now += 1.0
        shunned.append(clock.now - begun)
        clock.now += 1.0
    assert shunned == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    clock.now += 4000.0
    assert attention.shunned() == frozenset()
    attention.rest("mallory", 10.0, "rate")
    for _ in range(100):
        attention.reads("mallory")
    assert attention.shunned() == {"mallory"}
    clock.now += 60
    assert attention.shunned() == frozenset()


def test_who_is_not_read_but_quiet_is_not_shunned() -> None:
    clock = Clock()
    attention = Attention(clock)
    attention.rest("mallory", 3600.0, "quarantine")
    for _ in range(10):
        for _ in range(99):
            assert not attention.reads("mallory")
        assert not attention.floods
        clock.now += 1.0
    assert attention.shunned() == frozenset()


def test_what_is_remembered_is_bounded_whatever_ids_somebody_makes_up() -> None:
    clock = Clock()
    attention, sparing = Attention(clock), Sparing()
    for number in range(20_000):
        for _ in range(2):
            attention.wasted(f"client-{number}")
        attention.rest(f"client-{number}", 0.5, "rate")
        for _ in range(22):
            sparing.line(f"client-{number}", clock.now)
        clock.now += 0.01
    assert len(attention._out) <= 1024
    assert len(attention._wasted) < 5000
    assert len(sparing._left_out) <= 1024
    assert len(sparing._buckets) < 5000


USELESS = ("repeated", "without bytes", "need", "rubbish", "stale", "unsigned", "empty", "status")


@pytest.mark.parametrize("name", USELESS)
def test_each_message_that_leads_nowhere_is_told(tmp_path: Path, name: str) -> None:
    rules = Rules(RUN, LAYOUT, max_staleness=1)
    door = Door(tmp_path, rules, signed=name == "unsigned", strategy=plain_fedbuff(1000))
    attention = door.service._door._attention
    first = door.offer()
    door.say(first)
    door.signed = False

    def left() -> float:
        bucket = attention._forged if name in ("unsigned", "empty") else attention._wasted
        return bucket.left(CLIENT, door.broker.time.now)

    full = left()
    payloads = {
        "repeated": first,
        "without bytes": encode(header_of(door.offer())),
        "need": encode(Need(run=RUN, version=1)),
        "rubbish": b"\xc1",
        "stale": door.offer(base_version=0),
        "unsigned": door.offer(),
        "empty": b"",  # nobody has signed it, and it may be anybody's
        "status": encode(ClientStatus(state="online", client_id=CLIENT, incarnation="c" * 32)),
    }
    topic = TOPICS.status(CLIENT) if name == "status" else TOPICS.update(CLIENT)
    for _ in range(100):
        if name == "status":  # which only a strategy with a cohort subscribes to
            door.service.handle(Message(topic, payloads[name]))
        else:
            door.client.publish(topic, payloads[name])
    door.work(0.01)
    assert left() <= full - 90


def test_an_update_that_counts_is_not_told(tmp_path: Path) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT), strategy=plain_fedbuff(1000))
    door.say(*(door.offer() for _ in range(60)))
    assert door.state.accepted == 60
    assert door.service._door._attention._wasted.left(CLIENT, door.broker.time.now) == 200.0


class Room:
    """A link that pays attention, and three clients."""

    def __init__(self, *, known: bool = True, durable: bool = False) -> None:
        self.broker = MemoryBroker()
        self.topics = Topics("room")
        self.attention = Attention(lambda: self.broker.time.now)
        self.inner = self.broker.link("aggregator", durable=durable)
        self.known = KNOWN
        clients = (lambda: self.known) if known else None
        self.link = AttentiveLink(self.inner, self.topics, self.attention, clients, lambda: self.broker.time.now)
        self.clients: dict[str, MemoryLink] = {}
        for name in KNOWN:
            self.clients[name] = self.broker.link(name)
            self.clients[name].open()
        self.link.open()
        self.heard()
        self.link.subscribe(self.topics.updates, self.topics.statuses)
        self.heard()

    def heard(self) -> list[str]:
        """Who is heard in the next second."""
        found = []
        for _ in range(20):
            while (event := self.link.poll(0.0)) is not None or self.inner.waiting:
                if isinstance(event, Message):
                    found.append(event.topic.rpartition("/")[2])
            self.broker.time.step(self.broker.time.now + 0.05)
        return sorted(found)

    def say(self, *names: str, times: int = 1) -> None:
        for name in names:
            for _ in range(times):
                self.clients[name].publish(self.topics.update(name), b"x")

    def flood(self) -> None:
        self.attention.rest("mallory", 1.0, "rate")
        self.say("mallory", times=300)
        self.heard()


def test_a_client_that_floods_is_not_subscribed_to_until_its_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    room.flood()
    assert "shunned client=mallory" in caplog.text
    room.say(*KNOWN)
    assert room.heard() == ["alice", "bob"]
    assert room.inner.waiting == 0
    room.clients["alice"].publish(room.topics.status("alice"), b"x")
    room.clients["mallory"].publish(room.topics.status("mallory"), b"x")
    assert room.heard() == ["alice"]
    room.broker.time.step(room.broker.time.now + 60.0)
    with caplog.at_level(logging.WARNING):
        room.heard()
    assert "heard again client=mallory" in caplog.text
    room.say(*KNOWN)
    assert room.heard() == ["alice", "bob", "mallory"]


def test_a_device_that_is_added_meanwhile_is_heard() -> None:
    room = Room()
    room.flood()
    room.clients["carol"] = room.broker.link("carol")
    room.clients["carol"].open()
    room.say("carol")
    assert room.heard() == []
    room.known = KNOWN | {"carol"}
    room.heard()
    room.say("carol", "mallory")
    assert room.heard() == ["carol"]


def test_a_new_connection_shuns_the_same() -> None:
    room = Room()
    room.flood()
    room.inner.die()
    room.link.open()
    room.heard()
    room.link.subscribe(room.topics.updates)
    room.heard()
    room.say(*KNOWN)
    assert room.heard() == ["alice", "bob"]


def test_what_a_broken_connection_did_not_take_back_is_taken_back_in_the_next() -> None:
    room = Room(durable=True)
    room.flood()
    filters = room.broker._sessions["aggregator"].filters
    assert room.topics.updates not in filters
    filters.add(room.topics.updates)  # as if the end of this subscription had been lost
    room.inner.die()
    room.link.open()
    room.heard()
    room.link.subscribe(room.topics.updates)
    room.heard()
    assert filters == {
        room.topics.update("alice"),
        room.topics.update("bob"),
        *map(room.topics.status, ("alice", "bob")),
    }


def test_where_nobody_knows_who_there_is_everybody_is_subscribed_to() -> None:
    room = Room(known=False)
    room.flood()
    room.heard()
    room.say(*KNOWN)
    assert room.heard() == ["alice", "bob", "mallory"]


def test_a_part_is_told_if_it_brings_nothing(tmp_path: Path) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT), strategy=plain_fedbuff(1000))
    payload = door.offer()
    offer = header_of(payload).model_copy(update={"number": 0})
    part = encode(Part(run=RUN, update=offer.update, digest=offer.digest, offset=0, number=1), payload[-16:])
    door.say(encode(offer), seconds=0.01)
    door.say(part, seconds=0.01)
    assert door.state.accepted == 1
    left = door.service._door._attention._wasted.left(CLIENT, door.broker.time.now)
    assert left == pytest.approx(199.5, abs=0.5)  # for the offer without its bytes
    for _ in range(20):
        door.client.publish(TOPICS.update(CLIENT), part)
    door.work(0.01)
    assert door.service._door._attention._wasted.left(CLIENT, door.broker.time.now) < left - 15


@pytest.mark.parametrize("why", ["no room", "no disk"])
def test_a_part_is_told_if_it_is_not_kept(
    tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "_IN_MEMORY_BYTES", 0)
    (tmp_path / "parts").write_text("a file")
    door = Door(tmp_path, Rules(RUN, LAYOUT))
    payload = door.offer()
    offer = header_of(payload).model_copy(update={"number": 0})
    door.say(encode(offer))
    if why == "no room":
        assert door.service._reception._transfers is not None
        door.service._reception._transfers._room._most_bytes = 0
    part = encode(Part(run=RUN, update=offer.update, digest=offer.digest, offset=0, number=1), payload[-16:])
    for _ in range(1000):
        door.client.publish(TOPICS.update(CLIENT), part)
    door.work(1.0)
    assert door.service._door._attention._wasted.left(CLIENT, door.broker.time.now) < -700.0
    assert len([record for record in caplog.records if "a part was not kept" in record.message]) <= 20
