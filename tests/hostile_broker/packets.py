"""MQTT packets on an asyncio stream: as much of 3.1.1 and 5 as one needs to stand between a client and its broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from paho.mqtt.packettypes import PacketTypes

__all__ = ["Connect", "Packet", "Publish", "connect_of", "puback", "publish_of", "read_packet"]

_QOS_BITS = 0x06
_RETAIN_BIT = 0x01


@dataclass(frozen=True, slots=True)
class Packet:
    """Any packet: its first byte, and what follows its length."""

    first: int
    body: bytes

    @property
    def kind(self) -> int:
        return self.first >> 4

    def encode(self) -> bytes:
        return bytes([self.first]) + _length(len(self.body)) + self.body


@dataclass(frozen=True, slots=True)
class Connect:
    """Of a CONNECT: who it is, and the last will."""

    mqtt5: bool
    username: str
    will_topic: str
    will_payload: bytes


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH without properties."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    packet_id: int = 0

    def at_qos_0(self, *, retain: bool) -> Publish:
        return replace(self, qos=0, retain=retain, packet_id=0)

    def encode(self, *, mqtt5: bool) -> bytes:
        topic = self.topic.encode()
        body = len(topic).to_bytes(2) + topic
        if self.qos:
            body += self.packet_id.to_bytes(2)
        if mqtt5:
            body += b"\0"
        return Packet(PacketTypes.PUBLISH << 4 | self.qos << 1 | self.retain, body + self.payload).encode()


async def read_packet(reader: asyncio.StreamReader) -> Packet:
    """The next packet; asyncio.IncompleteReadError or OSError at the end."""
    first, size, shift = (await reader.readexactly(1))[0], 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return Packet(first, await reader.readexactly(size))


def publish_of(packet: Packet, *, mqtt5: bool) -> Publish:
    """What a PUBLISH says."""
    body, qos = packet.body, (packet.first & _QOS_BITS) >> 1
    topic, at = _text(body, 0)
    packet_id = 0
    if qos:
        packet_id, at = int.from_bytes(body[at : at + 2]), at + 2
    if mqtt5:
        at = _after_properties(body, at)
    return Publish(topic, body[at:], qos, bool(packet.first & _RETAIN_BIT), packet_id)


def connect_of(packet: Packet) -> Connect:
    """What a CONNECT with a name says."""
    body = packet.body
    _, at = _text(body, 0)
    version, flags, at = body[at], body[at + 1], at + 4
    if version == 5:
        at = _after_properties(body, at)
    _, at = _text(body, at)
    will_topic, will = "", b""
    if flags & 0x04:
        if version == 5:
            at = _after_properties(body, at)
        will_topic, at = _text(body, at)
        size = int.from_bytes(body[at : at + 2])
        will, at = body[at + 2 : at + 2 + size], at + 2 + size
    username = _text(body, at)[0] if flags & 0x80 else ""
    return Connect(version == 5, username, will_topic, will)


def puback(packet_id: int) -> bytes:
    """What says that a PUBLISH was taken."""
    return Packet(PacketTypes.PUBACK << 4, packet_id.to_bytes(2)).encode()


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + int.from_bytes(body[at : at + 2])
    return body[at + 2 : end].decode(), end


def _after_properties(body: bytes, at: int) -> int:
    size, shift = 0, 0
    while True:
        byte = body[at]
        size, at, shift = size | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return at + size


def _length(size: int) -> bytes:
    encoded = bytearray()
    while True:
        size, byte = size >> 7, size & 0x7F
        encoded.append(byte | 0x80 if size else byte)
        if not size:
            return bytes(encoded)
