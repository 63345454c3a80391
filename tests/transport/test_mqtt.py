"""What an MQTT link does with brokers that are old, slow, silent, hostile or broken."""

from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from fedmq.broker_config.start import RunningBroker, start_broker
from fedmq.schemas.errors import ConfigError, TransportError
from fedmq.transport.link import Connected, Disconnected, Message, Refused, Will
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_settings import MqttSettings
from tests.brokers import PATIENCE, expect, fence, opened, read_exactly, read_packet, scripted_broker, subscribed

ACCEPT_311 = bytes([0x20, 2, 0, 0])
ACCEPT_5 = bytes([0x20, 3, 0, 0, 0])

Script = Callable[[socket.socket], None]


def version_of(connect: bytes) -> int:
    """The protocol level in the body of a CONNECT."""
    return connect[6]


def answers(*, version: int, packet: bytes) -> Script:
    """A script: expect a CONNECT of this version, send this packet, and wait for the client to go."""

    def script(peer: socket.socket) -> None:
        _, body = read_packet(peer)
        assert version_of(body) == version
        peer.sendall(packet)
        while True:
            read_packet(peer)

    return script


def hangs_up(*, version: int) -> Script:
    def script(peer: socket.socket) -> None:
        assert version_of(read_packet(peer)[1]) == version

    return script


class Connect(Protocol):
    """Makes links, still to be opened, that are closed when the test ends."""

    def __call__(
        self, port: int, client_id: str = "ada", *, will: Will | None = None, **settings: object
    ) -> MqttLink: ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    links: list[MqttLink] = []

    def make(port: int, client_id: str = "ada", *, will: Will | None = None, **settings: object) -> MqttLink:
        changed = replace(MqttSettings(port=port, reconnect_max_seconds=0.2), **settings)  # type: ignore[arg-type]
        links.append(MqttLink(changed, client_id, will))
        return links[-1]

    yield make
    for link in links:
        link.close()


def length(count: int) -> bytes:
    """MQTT's variable-length integer."""
    encoded = bytearray()
    while count > 127:
        encoded.append(count & 127 | 128)
        count >>= 7
    return bytes([*encoded, count])


def publish_packet(topic: str, payload: bytes) -> bytes:
    """A PUBLISH at QoS 0 of MQTT 3.1.1."""
    body = struct.pack("!H", len(topic)) + topic.encode() + payload
    return b"\x30" + length(len(body)) + body


def test_a_broker_that_says_it_does_not_speak_mqtt_5_gets_3_1_1(connect: Connect) -> None:
    refusal = bytes([0x20, 2, 0, 1])
    with scripted_broker(
        answers(version=5, packet=refusal), answers(version=4, packet=ACCEPT_311), answers(version=4, packet=ACCEPT_311)
    ) as port:
        link = connect(port)
        link.open()
        assert "now with MQTT 3.1.1" in expect(link, Disconnected).reason
        assert link.poll(PATIENCE) == Connected()
        # What worked is remembered.
        assert link._session is not None
        link._session._wire._sock.shutdown(socket.SHUT_RDWR)
        expect(link, Disconnected)
        assert expect(link, Connected)


def test_a_broker_that_hangs_up_on_mqtt_5_gets_3_1_1(connect: Connect) -> None:
    with scripted_broker(hangs_up(version=5), answers(version=4, packet=ACCEPT_311)) as port:
        link = connect(port)
        link.open()
        assert "closed the connection instead of answering" in expect(link, Disconnected).reason
        assert link.poll(PATIENCE) == Connected()


def test_a_broker_that_hangs_up_on_both_versions_is_asked_for_mqtt_5_again(connect: Connect) -> None:
    with scripted_broker(hangs_up(version=5), hangs_up(version=4), answers(version=5, packet=ACCEPT_5)) as port:
        opened(connect(port))


def test_a_version_that_has_worked_is_not_given_up_for_one_refusal(connect: Connect) -> None:
    def accepts_and_hangs_up(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_5)

    with scripted_broker(accepts_and_hangs_up, hangs_up(version=5), answers(version=5, packet=ACCEPT_5)) as port:
        link = opened(connect(port))
        expect(link, Connected)


def test_a_real_broker_without_mqtt_5_is_reached(connect: Connect, embedded: RunningBroker, federation: str) -> None:
    link = opened(connect(embedded.ports["3.1.1"], federation))
    subscribed(link, f"{federation}/a")


def test_a_forced_version_stays(connect: Connect) -> None:
    with scripted_broker(hangs_up(version=5), hangs_up(version=5), answers(version=5, packet=ACCEPT_5)) as port:
        opened(connect(port, mqtt_version="5"))


def test_a_peer_that_never_answers_is_left_after_the_timeout_and_poll_keeps_its_time(connect: Connect) -> None:
    def reads_only(peer: socket.socket) -> None:
        while peer.recv(4096):
            pass

    with scripted_broker(reads_only) as port:
        link = connect(port, connect_timeout_seconds=0.5)
        link.open()
        assert not link.publish("a", b"not connected yet")
        started = time.monotonic()
        assert link.poll(0.1) is None
        assert time.monotonic() - started < 0.4
        assert "did not answer in 0.5 s" in expect(link, Disconnected).reason


def test_a_port_where_nobody_listens_is_named_and_tried_again(
    connect: Connect, embedded: RunningBroker, tmp_path: Path
) -> None:
    with start_broker("embedded", folder=tmp_path) as broker:
        port = broker.ports["5"]
    link = connect(port)
    link.open()
    for _ in range(3):
        assert expect(link, Disconnected).reason == f"no broker answers at 127.0.0.1:{port}; is it running?"


def test_a_name_that_is_none_is_a_reason_and_no_exception(connect: Connect) -> None:
    link = connect(1883, host="a" * 70 + ".example")
    link.open()
    assert "cannot be resolved" in expect(link, Disconnected).reason


def test_an_http_server_is_told_from_a_broker(connect: Connect) -> None:
    def speaks_http(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b" " * 1000)

    with scripted_broker(speaks_http) as port:
        link = connect(port, mqtt_version="5")
        link.open()
        assert "is it an MQTT broker" in expect(link, Disconnected).reason


@pytest.mark.broker
def test_the_packet_limit_of_the_broker_is_announced_and_kept(
    connect: Connect, mosquitto_installed: None, tmp_path: Path
) -> None:
    with start_broker("mosquitto", folder=tmp_path, max_message_bytes=100_000) as broker:
        link = connect(broker.ports["5"])
        link.open()
        limit = expect(link, Connected).max_packet_bytes
        assert limit == 100_000 + 64 * 1024
        assert limit - 1024 < link.max_message_bytes < limit
        with pytest.raises(TransportError, match=f"the limit is {link.max_message_bytes}"):
            link.publish("a", bytes(limit))
        assert link.publish("a", bytes(100_000))
        assert link.flush(PATIENCE)


def test_a_packet_that_is_announced_too_large_is_refused_before_its_body(connect: Connect) -> None:
    def threatens(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_311 + b"\x30" + length(200_000_000))
        while peer.recv(4096):
            pass

    with scripted_broker(threatens) as port:
        link = opened(connect(port, mqtt_version="3.1.1", max_message_bytes=1 << 20))
        assert "a packet of 200000000 bytes" in expect(link, Disconnected).reason


@pytest.mark.broker
def test_a_message_above_the_limit_of_its_reader_is_kept_back_by_an_mqtt_5_broker(
    connect: Connect, mosquitto: RunningBroker, federation: str
) -> None:
    reader = opened(connect(mosquitto.ports["5"], f"{federation}-reader", max_message_bytes=20_000))
    writer = opened(connect(mosquitto.ports["5"], f"{federation}-writer"))
    subscribed(reader, f"{federation}/a")
    writer.publish(f"{federation}/a", bytes(200_000))
    writer.publish(f"{federation}/a", b"small")
    assert expect(reader, Message).payload == b"small"


@pytest.mark.parametrize(
    "packet",
    [
        b"\x30\x01\x00",  # a PUBLISH without a topic
        b"\x30\x04\x00\xff\x61\x62",  # whose topic is longer than the packet
        b"\x90\x00",  # a SUBACK of nothing
        b"\x30\xff\xff\xff\xff\xff",  # a length that never ends
        b"\x00\x00",  # a packet type that does not exist
    ],
)
def test_a_malformed_packet_ends_the_connection_and_not_the_program(connect: Connect, packet: bytes) -> None:
    with scripted_broker(answers(version=4, packet=ACCEPT_311 + packet)) as port:
        link = opened(connect(port, mqtt_version="3.1.1"))
        assert expect(link, Disconnected).reason


def test_a_topic_that_is_no_text_is_passed_over(connect: Connect) -> None:
    packets = b"\x30\x05\x00\x02\xff\xfex" + publish_packet("a", b"fine")
    with scripted_broker(answers(version=4, packet=ACCEPT_311 + packets)) as port:
        link = opened(connect(port, mqtt_version="3.1.1"))
        assert link.poll(PATIENCE) == Message("a", b"fine")


def test_no_more_publishes_are_in_flight_than_the_broker_allows(connect: Connect) -> None:
    seen: list[int] = []
    all_sent = threading.Event()

    def allows_two(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(bytes([0x20, 6, 0, 0, 3, 0x21, 0, 2]))  # Receive Maximum 2
        while len(seen) < 6:
            _, body = read_packet(peer)
            seen.append(struct.unpack("!H", body[3:5])[0])
            if len(seen) == 2:
                all_sent.wait(PATIENCE)
                peer.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    read_exactly(peer, 1)
                peer.settimeout(PATIENCE)
                peer.sendall(struct.pack("!BBH", 0x40, 2, seen[0]))
            elif len(seen) > 2:
                peer.sendall(struct.pack("!BBH", 0x40, 2, seen[-2]))
        peer.sendall(struct.pack("!BBH", 0x40, 2, seen[-1]))
        while peer.recv(4096):
            pass

    with scripted_broker(allows_two) as port:
        link = opened(connect(port))
        for number in range(6):
            assert link.publish("a", str(number).encode())
        all_sent.set()
        assert link.flush(PATIENCE)
        assert seen == [1, 2, 3, 4, 5, 6]


def test_nothing_of_a_lost_connection_is_sent_on_the_next(connect: Connect) -> None:
    first_on_the_next: list[bytes] = []

    def takes_one_and_hangs_up(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_5)
        read_packet(peer)

    def takes_one(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_5)
        first_on_the_next.append(read_packet(peer)[1])
        peer.sendall(b"\x40\x02" + first_on_the_next[0][3:5])
        while peer.recv(4096):
            pass

    with scripted_broker(takes_one_and_hangs_up, takes_one) as port:
        link = opened(connect(port))
        for _ in range(50):
            link.publish("a", b"of the first connection")
        assert not link.flush(PATIENCE)
        expect(link, Connected)
        link.publish("a", b"of the second")
        assert link.flush(PATIENCE)
    assert first_on_the_next[0].endswith(b"of the second")


def test_an_owner_that_does_not_poll_stops_the_sender(connect: Connect) -> None:
    sent = 0
    full = threading.Event()

    def floods(peer: socket.socket) -> None:
        nonlocal sent
        read_packet(peer)
        peer.sendall(ACCEPT_311)
        peer.settimeout(0.5)
        packet = publish_packet("a", bytes(1 << 20))
        try:
            for _ in range(100):
                peer.sendall(packet)
                sent += 1
        except TimeoutError:
            full.set()

    with scripted_broker(floods) as port:
        link = opened(connect(port, mqtt_version="3.1.1"))
        for _ in range(10):
            link.publish("a", b"paho reads more at once while it waits for acknowledgements")
        expect(link, Message)
        assert full.wait(PATIENCE)
        assert len(link._events) == 0
        assert sent < 50


def test_a_refused_publish_and_a_refused_subscription_are_events(connect: Connect) -> None:
    def refuses(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_5)
        _, body = read_packet(peer)
        peer.sendall(b"\x40\x03" + body[3:5] + b"\x87")
        _, body = read_packet(peer)
        peer.sendall(b"\x90\x05" + body[:2] + b"\x00\x01\x87")
        while peer.recv(4096):
            pass

    with scripted_broker(refuses) as port:
        link = opened(connect(port))
        link.publish("a", b"may I")
        assert expect(link, Refused) == Refused("a", "the broker refused this publish: not authorized")
        link.subscribe("mine", "theirs")
        assert expect(link, Refused) == Refused("theirs", "the broker refused this subscription: not authorized")


@pytest.mark.parametrize(("code", "taken_over", "words"), [(0x8E, True, "took over"), (0x95, False, "packet limit")])
def test_a_broker_that_says_why_it_ends_the_connection_is_quoted(
    connect: Connect, code: int, taken_over: bool, words: str
) -> None:
    with scripted_broker(answers(version=5, packet=ACCEPT_5 + bytes([0xE0, 1, code]))) as port:
        link = opened(connect(port))
        ended = expect(link, Disconnected)
        assert ended.taken_over is taken_over
        assert words in ended.reason


def test_a_peer_that_falls_silent_is_given_up_after_two_keepalives(connect: Connect) -> None:
    with scripted_broker(answers(version=4, packet=ACCEPT_311)) as port:
        link = opened(connect(port, mqtt_version="3.1.1", keepalive_seconds=1))
        started = time.monotonic()
        assert "nothing was heard" in expect(link, Disconnected).reason
        assert 1.5 < time.monotonic() - started < 10


def test_a_message_may_take_longer_than_the_keepalive_as_long_as_it_moves(connect: Connect) -> None:
    packet = publish_packet("a", bytes(32))

    def trickles(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_311)
        for byte in packet:
            peer.sendall(bytes([byte]))
            time.sleep(0.1)
        while peer.recv(4096):
            pass

    with scripted_broker(trickles) as port:
        link = opened(connect(port, mqtt_version="3.1.1", keepalive_seconds=1))
        assert link.poll(PATIENCE) == Message("a", bytes(32))


def test_a_message_may_be_sent_for_longer_than_the_keepalive_as_long_as_it_moves(connect: Connect) -> None:
    payload = bytes(2 << 20)

    def sips(peer: socket.socket) -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        read_packet(peer)
        peer.sendall(ACCEPT_311)
        left = len(payload)
        while left > 0:
            left -= len(peer.recv(32 * 1024))
            time.sleep(0.05)
        peer.sendall(b"\x40\x02\x00\x01")
        while peer.recv(4096):
            pass

    with scripted_broker(sips) as port:
        link = opened(connect(port, mqtt_version="3.1.1", keepalive_seconds=1))
        assert link._session is not None
        link._session._wire._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        started = time.monotonic()
        assert link.publish("a", payload)
        assert link.flush(PATIENCE)
        assert time.monotonic() - started > 2.5


def test_wake_works_from_a_signal_handler(connect: Connect, embedded: RunningBroker, federation: str) -> None:
    link = opened(connect(embedded.ports["5"], federation))
    old = signal.signal(signal.SIGALRM, lambda number, frame: link.wake())
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        assert link.poll(PATIENCE) is None
    finally:
        signal.signal(signal.SIGALRM, old)
    assert time.monotonic() - started < PATIENCE / 2


def test_a_flush_that_takes_too_long_is_false_in_time(connect: Connect) -> None:
    with scripted_broker(answers(version=5, packet=ACCEPT_5)) as port:
        link = opened(connect(port))
        link.publish("a", b"never acknowledged")
        started = time.monotonic()
        assert not link.flush(0.2)
        assert 0.1 < time.monotonic() - started < PATIENCE / 2
        assert link.publish("a", b"the connection goes on")


def test_the_goodbye_reaches_a_broker_that_reads_only_after_it_has_sent_everything(connect: Connect) -> None:
    ends: list[int | str] = []

    def talks_first(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_311 + publish_packet("a", b"one of many"))
        peer.sendall(publish_packet("a", bytes(30 << 20)))
        try:
            while True:
                ends[:] = [read_packet(peer)[0]]
        except EOFError:
            ends.append("end of stream")

    with scripted_broker(talks_first) as port:
        link = opened(connect(port, mqtt_version="3.1.1"))
        expect(link, Message)
        for _ in range(10):
            link.publish("a", bytes(2 << 20), qos=0)
        link.close()
    assert ends == [0xE0, "end of stream"]  # DISCONNECT, and no reset


def test_close_takes_two_seconds_at_most_when_the_broker_reads_nothing(connect: Connect) -> None:
    done = threading.Event()

    def reads_nothing(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_5)
        done.wait(PATIENCE)

    with scripted_broker(reads_nothing) as port:
        link = opened(connect(port))
        for _ in range(10):
            link.publish("a", bytes(4 << 20), qos=0)
        started = time.monotonic()
        link.close()
        assert time.monotonic() - started < 2.0
        done.set()


def test_many_links_fit_in_one_process(connect: Connect, embedded: RunningBroker, federation: str) -> None:
    links = [connect(embedded.ports["5"], f"{federation}-{number}") for number in range(30)]
    for link in links:
        link.open()
    for link in links:
        expect(link, Connected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": ""}, "no broker address"),
        ({"port": 70000}, "no broker address"),
        ({"mqtt_version": "4"}, "mqtt_version"),
        ({"keepalive_seconds": 0}, "keepalive_seconds"),
        ({"password": "secret"}, "without a username"),
        ({"username": "ada", "password": "x" * 70_000}, "does not fit"),
        ({"max_message_bytes": 1 << 30}, "max_message_bytes"),
        ({"tls": True, "ca_file": Path("/nowhere/ca.pem")}, "ca_file /nowhere/ca.pem cannot be used: No such file"),
        ({"tls": True, "ca_file": Path(__file__)}, "not a usable PEM file"),
        ({"tls": True, "cert_file": Path(__file__), "key_file": Path(__file__)}, "PEM files with a key"),
    ],
)
def test_settings_that_cannot_work_are_an_error_on_opening(changes: dict[str, object], words: str) -> None:
    link = MqttLink(replace(MqttSettings(), **changes), "ada")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        link.open()


def test_a_client_id_or_a_will_that_mqtt_cannot_carry_is_an_error_on_opening() -> None:
    for link in (
        MqttLink(MqttSettings(), ""),
        MqttLink(MqttSettings(), "ada", Will("a/#", b"offline")),
        MqttLink(MqttSettings(), "ada", Will("a", bytes(70_000))),
    ):
        with pytest.raises(TransportError):
            link.open()


def test_a_topic_that_mqtt_does_not_have_is_an_error(
    connect: Connect, embedded: RunningBroker, federation: str
) -> None:
    link = opened(connect(embedded.ports["5"], federation))
    for topic in ("", "a/+", "#", "a\0", "a\ud800", "a" * 70_000):
        with pytest.raises(TransportError):
            link.publish(topic, b"")
    for pattern in ("", "a/#/b", "a+"):
        with pytest.raises(TransportError):
            link.subscribe(pattern)
    with pytest.raises(TransportError):
        link.unsubscribe("")
    assert fence(link, f"{federation}/fence") == []


def test_a_password_is_never_shown() -> None:
    assert "hunter2" not in repr(MqttSettings(username="ada", password="hunter2"))


def test_a_broker_that_cuts_a_connection_without_a_word_is_advised_on_when_it_does_so_again(connect: Connect) -> None:
    """The first time its next answer may say more: of a device that was revoked, that it is."""

    def accepts_and_cuts(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(b"\x20\x03\0\0\0")
        peer.shutdown(socket.SHUT_WR)
        peer.recv(1)

    with scripted_broker(accepts_and_cuts, accepts_and_cuts) as port:
        link = connect(port, "ada")
        link.open()
        first = expect(link, Disconnected).reason
        assert first == f"the broker at 127.0.0.1:{port} closed the connection without saying why"
        assert expect(link, Disconnected).reason == (
            f"{first}, again; look for another process with this client id, a message larger than it takes, and into "
            "its log"
        )
