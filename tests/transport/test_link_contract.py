"""What every link promises, over every broker that there is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

import pytest

from fedmq.broker_config.start import RunningBroker, start_broker
from fedmq.schemas.errors import TransportError
from fedmq.transport.link import Connected, Disconnected, Link, Message, Will
from fedmq.transport.memory import MemoryBroker, MemoryLink
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_settings import MqttSettings
from tests.brokers import PATIENCE, expect, fence, opened, subscribed, take

MOSQUITTO = [pytest.param(name, marks=pytest.mark.broker) for name in ("mosquitto 5", "mosquitto 3.1.1")]


class Bench(Protocol):
    """A broker, and what a test does to it and to links to it."""

    def link(
        self, client_id: str, will: Will | None = None, durable: bool = False, max_message_bytes: int = 4 << 20
    ) -> Link: ...

    def cut(self, link: Link) -> None: ...

    def stop(self) -> None: ...

    def start(self) -> None: ...


class MemoryBench:
    def __init__(self) -> None:
        self.broker = MemoryBroker(seed=0)

    def link(
        self, client_id: str, will: Will | None = None, durable: bool = False, max_message_bytes: int = 4 << 20
    ) -> Link:
        return self.broker.link(client_id, will=will, durable=durable, max_message_bytes=max_message_bytes)

    def cut(self, link: Link) -> None:
        assert isinstance(link, MemoryLink)
        link.drop()

    def stop(self) -> None:
        self.broker.stop()

    def start(self) -> None:
        self.broker.start()


class MqttBench:
    def __init__(self, broker: RunningBroker, version: Literal["5", "3.1.1"], folder: Path) -> None:
        self.broker = broker
        self.version = version
        self.folder = folder
        self.links: list[MqttLink] = []

    def link(
        self, client_id: str, will: Will | None = None, durable: bool = False, max_message_bytes: int = 4 << 20
    ) -> Link:
        settings = MqttSettings(
            port=self.broker.ports[self.version],
            mqtt_version=self.version,
            max_message_bytes=max_message_bytes,
            reconnect_max_seconds=0.5,
        )
        self.links.append(MqttLink(settings, client_id, will, durable))
        return self.links[-1]

    def cut(self, link: Link) -> None:
        """What a mobile network does: the broker sees the end of the stream, and no goodbye."""
        assert isinstance(link, MqttLink)
        assert link._session is not None
        link._session._wire._sock.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.broker.kill()

    def start(self) -> None:
        assert self.version == "5", "only this port can be chosen"
        self.broker = start_broker(self.broker.engine, folder=self.folder, port=self.broker.ports["5"])


@pytest.fixture(params=["memory", "embedded 5", "embedded 3.1.1", *MOSQUITTO])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "memory":
        yield MemoryBench()
        return
    engine, version = request.param.split()
    bench = MqttBench(request.getfixturevalue(engine), version, tmp_path)
    yield bench
    for link in bench.links:
        link.close()


@pytest.fixture(params=["memory", "embedded 5", MOSQUITTO[0]])
def mortal_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """With a broker that only this test uses, and may kill."""
    if request.param == "memory":
        yield MemoryBench()
        return
    engine, version = request.param.split()
    if engine == "mosquitto":
        request.getfixturevalue("mosquitto_installed")
    bench = MqttBench(start_broker(engine, folder=tmp_path), version, tmp_path)
    yield bench
    for link in bench.links:
        link.close()
    bench.broker.stop()


def test_a_message_reaches_every_subscriber_and_no_one_else(bench: Bench, federation: str) -> None:
    first, second, third = (opened(bench.link(f"{federation}-{number}")) for number in range(3))
    subscribed(first, f"{federation}/a")
    subscribed(second, f"{federation}/a")
    subscribed(third, f"{federation}/b")
    assert first.publish(f"{federation}/a", b"one")
    assert first.flush(PATIENCE)
    expected = Message(f"{federation}/a", b"one")
    assert take(first, 1) == take(second, 1) == [expected]
    assert fence(third, f"{federation}/fence") == []


def test_a_plus_stands_for_one_level(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    subscribed(link, f"{federation}/update/+")
    link.publish(f"{federation}/update/ada/more", b"no")
    link.publish(f"{federation}/update/ada", b"yes")
    assert take(link, 1) == [Message(f"{federation}/update/ada", b"yes")]


def test_a_retained_message_comes_on_subscribing(bench: Bench, federation: str) -> None:
    writer = opened(bench.link(f"{federation}-writer"))
    for payload in (b"old", b"new"):
        writer.publish(f"{federation}/model", payload, retain=True)
    assert writer.flush(PATIENCE)
    reader = opened(bench.link(f"{federation}-reader"))
    reader.subscribe(f"{federation}/model")
    assert take(reader, 1) == [Message(f"{federation}/model", b"new")]
    assert fence(reader, f"{federation}/fence") == []


def test_an_empty_retained_message_clears_the_topic(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    link.publish(f"{federation}/model", b"old", retain=True)
    link.publish(f"{federation}/model", b"", retain=True)
    assert link.flush(PATIENCE)
    link.subscribe(f"{federation}/model")
    assert fence(link, f"{federation}/fence") == []


def test_a_will_is_published_and_retained_when_the_connection_is_cut(bench: Bench, federation: str) -> None:
    topic = f"{federation}/status"
    watcher = opened(bench.link(f"{federation}-watcher"))
    subscribed(watcher, topic)
    mortal = opened(bench.link(f"{federation}-mortal", Will(topic, b"offline")))
    bench.cut(mortal)
    assert expect(watcher, Message) == Message(topic, b"offline")
    late = opened(bench.link(f"{federation}-late"))
    late.subscribe(topic)
    assert expect(late, Message) == Message(topic, b"offline")


def test_no_will_is_published_after_close(bench: Bench, federation: str) -> None:
    topic = f"{federation}/status"
    watcher = opened(bench.link(f"{federation}-watcher"))
    subscribed(watcher, topic)
    polite = opened(bench.link(f"{federation}-polite", Will(topic, b"offline")))
    polite.close()
    assert fence(watcher, f"{federation}/fence") == []


def test_no_will_is_published_after_close_in_the_middle_of_a_flood(bench: Bench, federation: str) -> None:
    status, flood = f"{federation}/status", f"{federation}/flood"
    watcher = opened(bench.link(f"{federation}-watcher"))
    subscribed(watcher, status)
    polite = opened(bench.link(f"{federation}-polite", Will(status, b"offline")))
    subscribed(polite, flood)
    for _ in range(200):
        watcher.publish(flood, bytes(20_000))
    assert watcher.flush(PATIENCE)
    assert expect(polite, Message).topic == flood
    polite.close()
    assert fence(watcher, f"{federation}/fence") == []


def test_a_publish_while_disconnected_is_refused_and_never_delivered_later(bench: Bench, federation: str) -> None:
    watcher = opened(bench.link(f"{federation}-watcher"))
    subscribed(watcher, f"{federation}/a")
    link = opened(bench.link(f"{federation}-link"))
    bench.cut(link)
    expect(link, Disconnected)
    assert not link.publish(f"{federation}/a", b"refused")
    assert not link.flush(0.1)
    expect(link, Connected)
    assert link.publish(f"{federation}/a", b"after")
    assert link.flush(PATIENCE)
    assert take(watcher, 1) == [Message(f"{federation}/a", b"after")]
    assert fence(watcher, f"{federation}/fence") == []


@pytest.mark.parametrize("qos", [0, 1])
def test_messages_of_one_publisher_keep_their_order(bench: Bench, federation: str, qos: int) -> None:
    reader = opened(bench.link(f"{federation}-reader"))
    subscribed(reader, f"{federation}/a")
    writer = opened(bench.link(f"{federation}-writer"))
    payloads = [str(number).encode() for number in range(90)]
    for payload in payloads:
        assert writer.publish(f"{federation}/a", payload, qos=qos)
    assert writer.flush(PATIENCE)
    assert [message.payload for message in take(reader, len(payloads))] == payloads


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_of_any_size_arrives_as_it_was_sent(bench: Bench, federation: str, qos: int) -> None:
    """Around every size at which the length of a packet takes another byte, with the topic and without it."""
    link = opened(bench.link(f"{federation}-a"))
    topic = f"fedmq/{federation}/ä"
    subscribed(link, topic)
    near = [edge - over for edge in (1 << 7, 1 << 14) for over in range(-2, len(topic.encode()) + 8)]
    sizes = [0, 1, *near, 70_000]
    for size in sizes:
        assert link.publish(topic, bytes(size), qos=qos)
    assert [len(message.payload) for message in take(link, len(sizes))] == sizes
    link.close()


def test_a_large_message_arrives_whole(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    subscribed(link, f"{federation}/a")
    payload = bytes(range(256)) * 4096
    assert link.publish(f"{federation}/a", payload)
    assert expect(link, Message).payload == payload


def test_a_message_above_the_limit_is_an_error_and_the_link_goes_on(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation, max_message_bytes=1000))
    subscribed(link, f"{federation}/a")
    with pytest.raises(TransportError, match="1001 bytes"):
        link.publish(f"{federation}/a", bytes(1001))
    assert link.publish(f"{federation}/a", bytes(1000))
    assert take(link, 1) == [Message(f"{federation}/a", bytes(1000))]


def test_wake_makes_a_waiting_poll_return(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    timer = threading.Timer(0.05, link.wake)
    started = time.monotonic()
    timer.start()
    assert link.poll(PATIENCE) is None
    timer.join()
    assert time.monotonic() - started < PATIENCE / 2


def test_a_wake_before_poll_is_not_lost_and_loses_nothing(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    subscribed(link, f"{federation}/a")
    link.publish(f"{federation}/a", b"one")
    started = time.monotonic()
    link.wake()
    link.wake()
    first = link.poll(PATIENCE)
    assert first in (None, Message(f"{federation}/a", b"one"))
    if first is None:
        assert expect(link, Message).payload == b"one"
    assert time.monotonic() - started < PATIENCE / 2


def test_a_wake_during_flush_is_kept_for_poll(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    link.publish(f"{federation}/a", b"one")
    link.wake()
    assert link.flush(PATIENCE)
    started = time.monotonic()
    assert link.poll(PATIENCE) is None
    assert time.monotonic() - started < PATIENCE / 2


def test_flush_waits_for_the_broker_and_keeps_what_comes_meanwhile(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    subscribed(link, f"{federation}/a")
    payloads = [str(number).encode() for number in range(50)]
    for payload in payloads:
        assert link.publish(f"{federation}/a", payload)
    assert link.flush(PATIENCE)
    assert [message.payload for message in take(link, len(payloads))] == payloads


def test_flush_without_a_publish_is_true_at_once(bench: Bench, federation: str) -> None:
    assert opened(bench.link(federation)).flush(0)


def test_the_same_client_id_takes_the_connection_over(bench: Bench, federation: str) -> None:
    first = opened(bench.link(federation))
    second = opened(bench.link(federation))
    assert expect(first, Disconnected).reason
    first.close()
    subscribed(second, f"{federation}/a")


def test_nothing_comes_after_unsubscribing(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    subscribed(link, f"{federation}/a", f"{federation}/b")
    link.unsubscribe(f"{federation}/a")
    link.publish(f"{federation}/a", b"no")
    link.publish(f"{federation}/b", b"yes")
    assert take(link, 1) == [Message(f"{federation}/b", b"yes")]
    assert fence(link, f"{federation}/fence") == []


def test_more_subscriptions_than_fit_in_one_request_are_made(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    topics = [f"{federation}/{number}" for number in range(30)]
    subscribed(link, *topics)
    for topic in topics:
        link.publish(topic, b"here")
    assert [message.topic for message in take(link, len(topics))] == topics


def test_a_link_that_was_cut_connects_again_and_its_subscriptions_are_gone(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    subscribed(link, f"{federation}/a")
    bench.cut(link)
    assert expect(link, Disconnected).reason
    assert not expect(link, Connected).session_present
    link.publish(f"{federation}/a", b"not subscribed any more")
    assert fence(link, f"{federation}/fence") == []


def test_a_link_comes_back_when_the_broker_does(mortal_bench: Bench, federation: str) -> None:
    link = opened(mortal_bench.link(federation))
    mortal_bench.stop()
    expect(link, Disconnected)
    assert not link.publish(f"{federation}/a", b"nobody is there")
    mortal_bench.start()
    expect(link, Connected)
    subscribed(link, f"{federation}/a")


def test_a_durable_session_keeps_messages_for_an_absent_client(bench: Bench, federation: str) -> None:
    sleeper = opened(bench.link(f"{federation}-sleeper", durable=True))
    subscribed(sleeper, f"{federation}/a")
    sleeper.close()
    writer = opened(bench.link(f"{federation}-writer"))
    assert writer.publish(f"{federation}/a", b"good morning")
    assert writer.flush(PATIENCE)
    sleeper = bench.link(f"{federation}-sleeper", durable=True)
    sleeper.open()
    assert expect(sleeper, Connected).session_present
    assert expect(sleeper, Message) == Message(f"{federation}/a", b"good morning")


def test_a_session_that_is_not_durable_keeps_nothing(bench: Bench, federation: str) -> None:
    sleeper = opened(bench.link(f"{federation}-sleeper"))
    subscribed(sleeper, f"{federation}/a")
    sleeper.close()
    writer = opened(bench.link(f"{federation}-writer"))
    writer.publish(f"{federation}/a", b"good morning")
    assert writer.flush(PATIENCE)
    sleeper = bench.link(f"{federation}-sleeper")
    sleeper.open()
    assert not expect(sleeper, Connected).session_present
    assert fence(sleeper, f"{federation}/fence") == []


def test_a_closed_link_does_nothing_and_can_be_closed_again(bench: Bench, federation: str) -> None:
    link = opened(bench.link(federation))
    started = time.monotonic()
    link.close()
    link.close()
    assert time.monotonic() - started < 2.0
    assert not link.publish(f"{federation}/a", b"nobody is there")
    link.subscribe(f"{federation}/a")
    link.wake()
    assert link.poll(0) is None
