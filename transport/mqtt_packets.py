"""Incoming MQTT packets, cut out of what one read brings; a large payload is read straight into memory of its own.

paho reads a packet's head byte by byte and copies its body once for every field. At 10 KB the reads cost more than
everything that is done with the message; at a megabyte the copies do.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

from paho.mqtt.packettypes import PacketTypes

from fedmq.transport.mqtt_socket import Wire

__all__ = ["MalformedPacketError", "Packet", "PacketReader", "Publish"]

# What is read ahead of the owner at most, and the largest packet that is not a PUBLISH.
_READ_AHEAD_BYTES = 256 * 1024
_SHIFTS = (0, 7, 14, 21)  # of a length's bytes
_QOS, _QOS_1 = 0x06, 0x02  # bits of a PUBLISH's first byte


class MalformedPacketError(ValueError):
    """Bytes that are not MQTT, or that were not asked for."""


class Packet(NamedTuple):
    """Any packet but a PUBLISH: its first byte, and what follows its length."""

    first: int
    body: bytes


class Publish(NamedTuple):
    """A PUBLISH; its properties are not kept. The packet id is 0 at QoS 0."""

    topic: bytes
    packet_id: int
    payload: bytes


@dataclass(slots=True)
class _Filling:
    """A payload of which a part has come."""

    topic: bytes
    packet_id: int
    memory: io.BytesIO  # gives its content away as bytes without copying
    room: memoryview  # what is still to come


class PacketReader:
    """Reads from one wire.

    Args:
        wire: connected.
        mqtt5: whether packets have properties.

    """

    def __init__(self, wire: Wire, *, mqtt5: bool) -> None:
        self._wire = wire
        self._mqtt5 = mqtt5
        self._buffer = memoryview(bytearray(_READ_AHEAD_BYTES))
        self._start = self._end = 0  # of what has come and was not taken
        self._filling: _Filling | None = None

    def read(self) -> bool:
        """Read once; whether more may be there.

        Raises:
            OSError: BlockingIOError if nothing is there; else the connection is lost.

        """
        if self._filling is not None:
            room = self._filling.room
            count = self._wire.receive(room)
            self._filling.room = room[count:]
        else:
            waiting = self._end - self._start
            if self._start:
                self._buffer[:waiting] = self._buffer[self._start : self._end]
                self._start, self._end = 0, waiting
            room = self._buffer[waiting:]
            count = self._wire.receive(room)
            self._end += count
        return count == len(room) or self._wire.pending()

    def take(self) -> Packet | Publish | None:
        """The next packet of what was read; None if it is not all there yet.

        Raises:
            MalformedPacketError: it is none.
            PacketTooLargeError: it is announced as larger than allowed. Nothing of its payload was read.

        """
        if self._filling is not None:
            return self._filled(self._filling)
        buffer, start = self._buffer, self._start
        try:
            size, at = _length(buffer, start + 1, self._end)
        except IndexError:
            return None
        if size > self._wire.max_packet_bytes:
            raise self._wire.too_large(size)
        first, end = buffer[start], at + size
        if first >> 4 == PacketTypes.PUBLISH:
            return self._publish(first, at, end)
        if end - start > len(buffer):
            raise self._wire.too_large(size)
        if end > self._end:
            return None
        self._start = end
        return Packet(first, bytes(buffer[at:end]))

    def _publish(self, first: int, at: int, end: int) -> Publish | None:
        """The PUBLISH whose body lies, or will lie, between these places in the buffer."""
        buffer = self._buffer
        whole = end <= self._end
        if not whole and end - self._start <= len(buffer):
            return None
        envelope = self._envelope(first, at, min(end, self._end))
        if envelope is None:
            if whole or self._end - self._start == len(buffer):
                raise MalformedPacketError("a PUBLISH that is shorter than what it begins with")
            return None
        topic, packet_id, at = envelope
        if whole:
            self._start = end
            return Publish(topic, packet_id, bytes(buffer[at:end]))
        memory = io.BytesIO()
        memory.seek(end - at - 1)
        memory.write(b"\0")
        room = memory.getbuffer()
        came = self._end - at
        room[:came] = buffer[at : self._end]
        self._start = self._end = 0
        self._filling = _Filling(topic, packet_id, memory, room[came:])
        return None

    def _envelope(self, first: int, at: int, end: int) -> tuple[bytes, int, int] | None:
        """Topic, packet id, and where the payload begins; None if that is beyond `end`."""
        buffer, packet_id = self._buffer, 0
        try:
            # Two reads of a byte take half as long as a struct.
            length = buffer[at] << 8 | buffer[at + 1]
            at += 2 + length
            topic = bytes(buffer[at - length : at])
            if first & _QOS:
                packet_id = buffer[at] << 8 | buffer[at + 1]
                at += 2
            if self._mqtt5:
                size, at = _length(buffer, at, end) if buffer[at] else (0, at + 1)  # there seldom are any properties
                at += size
        except IndexError:
            return None
        if at > end:
            return None
        if first & _QOS > _QOS_1 or not (topic or self._mqtt5):
            raise MalformedPacketError("a PUBLISH without a topic, or at a QoS that was not asked for")
        return topic, packet_id, at

    def _filled(self, filling: _Filling) -> Publish | None:
        if filling.room:
            return None
        self._filling = None
        filling.room.release()
        return Publish(filling.topic, filling.packet_id, filling.memory.getvalue())


def _length(buffer: memoryview, at: int, end: int) -> tuple[int, int]:
    """MQTT's variable-length integer, and where it ends; IndexError if that is beyond `end`."""
    size = 0
    for shift in _SHIFTS:
        if at >= end:
            raise IndexError
        byte = buffer[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size, at
    raise MalformedPacketError("a length that does not end")
