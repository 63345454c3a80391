"""What goes over the wire together, and how far a link reads ahead of its owner."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from fedmq.transport.link import Message
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_settings import MqttSettings
from tests.brokers import PATIENCE, expect, opened, read_packet, scripted_broker

ACCEPT_311 = bytes([0x20, 2, 0, 0])


def link_to(port: int) -> MqttLink:
    return opened(MqttLink(MqttSettings(port=port, mqtt_version="3.1.1"), "ada"))


def publish_packet(packet_id: int, payload: bytes) -> bytes:
    """A PUBLISH at QoS 1 of MQTT 3.1.1 to the topic a."""
    size = 5 + len(payload)
    return bytes([0x32, size & 127 | 128, size >> 7]) + b"\0\1a" + struct.pack("!H", packet_id) + payload


def test_messages_that_come_together_are_acknowledged_together() -> None:
    acknowledgements: list[bytes] = []

    def sends_ten(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_311)
        peer.sendall(b"".join(publish_packet(number, bytes(200)) for number in range(1, 11)))
        acknowledgements.append(peer.recv(4096))

    with scripted_broker(sends_ten) as port:
        link = link_to(port)
        for _ in range(10):
            expect(link, Message)
        link.close()
    assert acknowledgements[0][:40] == b"".join(struct.pack("!BBH", 0x40, 2, number) for number in range(1, 11))


def test_thousands_of_tiny_messages_in_one_read_are_acknowledged_once_each_and_in_order() -> None:
    count = 5000
    came = bytearray()

    def sends_thousands(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_311)
        peer.sendall(b"".join(publish_packet(number, b"") for number in range(1, count + 1)))
        while len(came) < 4 * count:
            came.extend(peer.recv(65536))

    with scripted_broker(sends_thousands) as port:
        link = link_to(port)
        for _ in range(count):
            expect(link, Message)
        link.close()
    assert came[: 4 * count] == b"".join(struct.pack("!BBH", 0x40, 2, number) for number in range(1, count + 1))


def test_a_link_reads_no_more_ahead_than_one_read() -> None:
    def floods(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_311)
        for number in range(1, 501):
            peer.sendall(publish_packet(number, bytes(10_000)))
        while peer.recv(4096):
            pass

    with scripted_broker(floods) as port:
        link = link_to(port)
        for _ in range(500):
            expect(link, Message)
            ahead = [event for event in link._events if isinstance(event, Message)]
            assert sum(len(message.payload) for message in ahead) <= 256 * 1024
        link.close()


def test_a_few_publishes_go_out_at_once_and_a_burst_together_at_the_next_poll() -> None:
    came: list[bytes] = []
    few_came = threading.Event()

    def reads(peer: socket.socket) -> None:
        read_packet(peer)
        peer.sendall(ACCEPT_311)
        while len(came) < 100:
            came.append(read_packet(peer)[1][3:])
            if len(came) == 8:
                peer.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    peer.recv(1, socket.MSG_PEEK)
                peer.settimeout(PATIENCE)
                few_came.set()

    with scripted_broker(reads) as port:
        link = link_to(port)
        for number in range(100):
            assert link.publish("a", bytes([number]), qos=0)
        assert few_came.wait(PATIENCE)
        assert link.flush(PATIENCE)
        link.close()
    assert came == [bytes([number]) for number in range(100)]
