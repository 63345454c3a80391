"""What the broker in memory adds to a link's contract: virtual time, faults, death."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fedmq.schemas.errors import TransportError
from fedmq.transport.link import Connected, Disconnected, Event, Message, Will
from fedmq.transport.memory import Faults, MemoryBroker, MemoryLink


def linked(broker: MemoryBroker, client_id: str, *topics: str, durable: bool = False) -> MemoryLink:
    """A link that is connected and subscribed."""
    link = broker.link(client_id, durable=durable)
    link.open()
    assert isinstance(link.poll(1.0), Connected)
    link.subscribe(*topics)
    link.flush(10.0)
    return link


def heard(link: MemoryLink, seconds: float = 100.0) -> list[Event]:
    """All events of the next so many virtual seconds."""
    until = link._broker.time.now + seconds
    events: list[Event] = []
    while (event := link.poll(max(0.0, until - link._broker.time.now))) is not None:
        events.append(event)
    return events


def payloads(events: list[Event]) -> list[int]:
    return [int(event.payload) for event in events if isinstance(event, Message)]


def numbers_through(faults: Faults, count: int = 200, seed: int = 0) -> list[int]:
    """What of so many numbered messages arrives, in the order in which it does."""
    broker = MemoryBroker(seed=seed)
    receiver, sender = linked(broker, "receiver", "t"), linked(broker, "sender")
    broker.faults = faults
    for number in range(count):
        sender.publish("t", str(number).encode())
    return payloads(heard(receiver))


def test_polling_lets_virtual_time_pass_up_to_the_timeout_and_no_further() -> None:
    broker = MemoryBroker()
    link = linked(broker, "dev")
    before = broker.time.now
    assert link.poll(5.0) is None
    assert broker.time.now == before + 5.0
    assert link.poll(0.0) is None
    assert broker.time.now == before + 5.0


def test_a_message_takes_the_networks_time_both_ways() -> None:
    broker = MemoryBroker(faults=Faults(delay=(2.0, 2.0)))
    receiver, sender = linked(broker, "receiver", "t"), linked(broker, "sender")
    sent = broker.time.now
    sender.publish("t", b"1")
    assert isinstance(receiver.poll(10.0), Message)
    assert broker.time.now == sent + 4.0


def test_wake_ends_a_poll_without_letting_time_pass() -> None:
    broker = MemoryBroker()
    link = linked(broker, "dev")
    before = broker.time.now
    link.wake()
    assert link.poll(1000.0) is None
    assert broker.time.now == before
    assert link.poll(1.0) is None
    assert broker.time.now == before + 1.0, "one wake ends one poll"


def test_without_faults_every_message_arrives_once_and_in_order() -> None:
    assert numbers_through(Faults()) == list(range(200))


def test_delays_alone_keep_the_order() -> None:
    assert numbers_through(Faults(delay=(0.0, 5.0))) == list(range(200))


def test_reordering_lets_later_messages_overtake_but_loses_none() -> None:
    arrived = numbers_through(Faults(delay=(0.0, 5.0), reordering=True))
    assert arrived != sorted(arrived)
    assert sorted(arrived) == list(range(200))


def test_loss_and_duplication_happen_as_often_as_they_should() -> None:
    lost = numbers_through(Faults(loss=0.3), count=1000)
    assert 650 <= len(lost) <= 750
    assert all(before < after for before, after in pairwise(lost))
    doubled = numbers_through(Faults(duplication=0.3), count=1000)
    assert 1250 <= len(doubled) <= 1350
    assert set(doubled) == set(range(1000))


def test_the_same_seed_is_the_same_weather() -> None:
    storm = Faults(delay=(0.0, 5.0), loss=0.3, duplication=0.3, reordering=True)
    assert numbers_through(storm, seed=1) == numbers_through(storm, seed=1)
    assert numbers_through(storm, seed=1) != numbers_through(storm, seed=2)


def test_the_death_of_a_process_publishes_its_will_and_nothing_of_it_connects_again() -> None:
    broker = MemoryBroker()
    watcher = linked(broker, "watcher", "status")
    link = broker.link("dev", will=Will("status", b"0"))
    link.open()
    link.poll(1.0)
    link.die()
    assert payloads(heard(watcher)) == [0]
    assert broker.retained["status"] == b"0"
    assert heard(link) == []
    assert not link.publish("t", b"1")


def test_a_connection_that_breaks_loses_what_was_on_its_way_and_comes_back_by_itself() -> None:
    broker = MemoryBroker(faults=Faults(delay=(1.0, 1.0)))
    receiver, sender = linked(broker, "receiver", "t"), linked(broker, "sender")
    sender.publish("t", b"1")
    sender.drop("a tunnel")
    sender.publish("t", b"2")
    events = heard(sender, 1.0)
    assert events == [Disconnected("a tunnel"), Connected(session_present=False)]
    sender.publish("t", b"3")
    assert payloads(heard(receiver)) == [3]


def test_what_was_on_its_way_to_a_receiver_does_not_arrive_in_its_next_connection() -> None:
    broker = MemoryBroker(faults=Faults(delay=(1.0, 1.0)))
    receiver, sender = linked(broker, "receiver", "t"), linked(broker, "sender")
    sender.publish("t", b"1")
    broker.time.step(broker.time.now + 1.0)  # it is at the broker
    receiver.drop()
    assert payloads(heard(receiver)) == []


def test_a_broker_that_stops_breaks_every_connection_and_starts_again_with_what_it_kept() -> None:
    broker = MemoryBroker()
    one, other = linked(broker, "one", "t", durable=True), linked(broker, "other")
    other.publish("kept", b"7", retain=True)
    other.flush(1.0)
    broker.stop()
    for link in (one, other):
        assert [type(event) for event in heard(link, 5.0)] == [Disconnected]
    broker.start()
    assert heard(one, 1.0) == [Connected(session_present=True)]
    assert heard(other, 1.0) == [Connected(session_present=False)]
    one.subscribe("kept")
    assert payloads(heard(one)) == [7]


def test_a_broker_that_forgets_has_neither_sessions_nor_retained_messages() -> None:
    broker = MemoryBroker()
    one = linked(broker, "one", "t", durable=True)
    one.publish("kept", b"7", retain=True)
    one.flush(1.0)
    broker.stop(forget=True)
    broker.start()
    assert heard(one) == [Disconnected("the broker stopped"), Connected(session_present=False)]
    one.subscribe("kept")
    assert heard(one) == []
    assert broker.retained == {}


def test_a_message_that_is_too_large_is_an_error_that_names_the_topic_and_the_limit() -> None:
    broker = MemoryBroker()
    link = broker.link("dev", max_message_bytes=10)
    with pytest.raises(TransportError, match="t: a message of 11 bytes, the limit is 10"):
        link.publish("t", b"x" * 11)
