"""Packets cut out of a stream of bytes, over real sockets."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from selectors import DefaultSelector

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.transport.mqtt_packets import MalformedPacketError, Packet, PacketReader, Publish
from fedmq.transport.mqtt_socket import PacketTooLargeError, Wire

READ_AHEAD = 256 * 1024
LIMIT = 8 << 20


@contextmanager
def stream(*, mqtt5: bool = True, limit: int = LIMIT) -> Iterator[tuple[socket.socket, PacketReader, Wire]]:
    """The broker's end, and a reader of what is written there."""
    ours, theirs = socket.socketpair()
    with ours, theirs, DefaultSelector() as selector:
        ours.setblocking(False)
        theirs.settimeout(20)
        wire = Wire(ours, selector, limit)
        yield theirs, PacketReader(wire, mqtt5=mqtt5), wire


def length(count: int) -> bytes:
    encoded = bytearray()
    while count > 127:
        encoded.append(count & 127 | 128)
        count >>= 7
    return bytes([*encoded, count])


def written(packet: Packet | Publish, *, mqtt5: bool) -> bytes:
    if isinstance(packet, Packet):
        return bytes([packet.first]) + length(len(packet.body)) + packet.body
    body = struct.pack("!H", len(packet.topic)) + packet.topic
    body += struct.pack("!H", packet.packet_id) if packet.packet_id else b""
    if mqtt5:  # no properties, as usual, or one that nobody asks for
        body += b"\0" if len(packet.payload) % 2 else b"\x05\x02\0\0\0\x09"
    body += packet.payload
    return bytes([0x32 if packet.packet_id else 0x30]) + length(len(body)) + body


def read_all(broker: socket.socket, reader: PacketReader, pieces: list[bytes]) -> list[Packet | Publish]:
    """What comes of these pieces, each read before the next is written."""
    packets: list[Packet | Publish] = []
    for piece in pieces:
        view = memoryview(piece)
        broker.setblocking(False)
        while view:
            with suppress(BlockingIOError):
                view = view[broker.send(view) :]
            with suppress(BlockingIOError):
                while True:
                    reader.read()
                    while (packet := reader.take()) is not None:
                        packets.append(packet)
    return packets


publishes = st.builds(
    lambda topic, packet_id, size, fill: Publish(topic, packet_id, bytes([fill]) * size),
    st.binary(min_size=1, max_size=300),
    st.integers(0, 65535),
    st.one_of(st.integers(0, 2000), st.integers(READ_AHEAD - 20, READ_AHEAD + 20), st.just(400_000)),
    st.integers(0, 255),
)
others = st.builds(Packet, st.sampled_from([0x20, 0x40, 0x90, 0xB0, 0xD0]), st.binary(max_size=200))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(publishes, others), max_size=8), st.booleans(), st.data())
def test_packets_come_out_as_they_went_in_however_the_bytes_are_cut(
    packets: list[Packet | Publish], mqtt5: bool, data: st.DataObject
) -> None:
    whole = b"".join(written(packet, mqtt5=mqtt5) for packet in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    with stream(mqtt5=mqtt5) as (broker, reader, _):
        assert read_all(broker, reader, pieces) == packets


def test_one_byte_at_a_time_is_enough() -> None:
    packets: list[Packet | Publish] = [Publish(b"a/b", 7, b"x" * 300), Packet(0x40, b"\0\1"), Publish(b"c", 0, b"")]
    whole = b"".join(written(packet, mqtt5=True) for packet in packets)
    with stream() as (broker, reader, _):
        assert read_all(broker, reader, [whole[n : n + 1] for n in range(len(whole))]) == packets


def test_a_large_payload_is_in_memory_once() -> None:
    packet = Publish(b"a", 1, bytes(6_000_000))
    whole = written(packet, mqtt5=True)
    with stream() as (broker, reader, _):
        tracemalloc.start()
        try:
            (read,) = read_all(broker, reader, [whole])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert read == packet
    assert peak < 1.2 * len(packet.payload)


def test_nothing_of_a_packet_that_is_announced_too_large_is_kept() -> None:
    with stream(limit=100_000) as (broker, reader, wire):
        broker.sendall(b"\x30" + length(100_001) + b"\0\1a")
        reader.read()
        with pytest.raises(PacketTooLargeError, match="100001 bytes, the limit is 100000"):
            reader.take()
        assert isinstance(wire.failure, PacketTooLargeError)


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x30\xff\xff\xff\xff\x01",  # a length that does not end
        b"\x30\x03\x00\x05a",  # a topic that is longer than its packet
        b"\x32\x04\x00\x01a\x00",  # half a packet id
        b"\x34\x06\x00\x01a\x00\x01\x00",  # QoS 2
        b"\x36\x06\x00\x01a\x00\x01\x00",  # QoS 3
        b"\x30\x05\x00\x01a\x7f\x00",  # properties that are longer than the packet
        b"\x30" + length(500_000) + b"\0\1a\xff\xff\x7f" + bytes(READ_AHEAD),  # properties beyond what is read ahead
    ],
)
def test_what_is_not_mqtt_is_an_error(bytes_: bytes) -> None:
    with stream() as (broker, reader, _), pytest.raises(MalformedPacketError):
        read_all(broker, reader, [bytes_])


def test_mqtt_3_has_no_message_without_a_topic() -> None:
    with stream(mqtt5=False) as (broker, reader, _), pytest.raises(MalformedPacketError):
        read_all(broker, reader, [b"\x30\x03\x00\x00x"])


def test_small_writes_are_gathered_and_never_cut() -> None:
    with stream() as (broker, _, wire):
        for number in range(1000):
            assert wire.send(struct.pack("!I", number)) == 4
        broker.setblocking(False)
        with pytest.raises(BlockingIOError):
            broker.recv(1)
        wire.push()
        assert broker.recv(8000) == b"".join(struct.pack("!I", number) for number in range(1000))
        taken = came = 0
        with suppress(BlockingIOError):
            while True:
                taken += wire.send(b"1234")
        while wire.unsent or came < taken:
            with suppress(BlockingIOError):
                came += len(broker.recv(1 << 20))
                wire.push()
        assert came == taken
