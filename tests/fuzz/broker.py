"""What a hostile broker writes into a connection: packets of every type, altered, cut anywhere, and never read back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from selectors import BaseSelector, SelectSelector
from socket import socket
from typing import Any, cast

from fedmq.transport.link import Connected, Disconnected, Event, Message, Refused, Will
from fedmq.transport.mqtt_limit import MessageLimit
from fedmq.transport.mqtt_session import Session
from fedmq.transport.mqtt_settings import MqttSettings
from fedmq.transport.mqtt_socket import Wire
from tests.fuzz.choices import Choices
from tests.fuzz.mutation import altered_bytes
from tests.fuzz.seeds import payloads
from tests.fuzz.world import require, require_bounded

__all__ = ["BrokerWorld"]

_LIMIT = 1 << 20
_READ_AHEAD = 256 * 1024
_LARGE = bytes(300_000)  # more than is read ahead


class _Socket:
    """The broker's end and the network between: what it has written, and whether it reads."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.reads = True
        self.closed = False

    def recv_into(self, room: memoryview) -> int:
        if not self.written:
            if self.closed:
                return 0
            raise BlockingIOError
        count = min(len(room), len(self.written))
        room[:count] = self.written[:count]
        del self.written[:count]
        return count

    def send(self, data: bytes) -> int:
        if not self.reads:
            raise BlockingIOError
        return len(data)

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return 0


class _Selector(SelectSelector):
    """Nobody waits here."""

    def register(self, *_: Any) -> Any:
        return None

    def modify(self, *_: Any) -> Any:
        return None

    def unregister(self, *_: Any) -> Any:
        return None


class BrokerWorld:
    """One connection.

    Args:
        number: odd ones speak MQTT 5; some brokers keep to the protocol, some read nothing that they are sent.

    """

    def __init__(self, *, number: int) -> None:
        self.over = False
        self._mqtt5 = number % 2 == 1
        self._wild = number // 2 % 4 == 0
        self._socket = _Socket()
        self._events: list[Event] = []
        self._sent: list[tuple[bytes, bytes]] = []  # as long as all of it was in order
        self._in_order = True
        self._announced = 0
        settings = MqttSettings(max_message_bytes=_LIMIT)
        selector: BaseSelector = _Selector()
        self._wire = Wire(cast(socket, self._socket), selector, _LIMIT + 64 * 1024)
        self._session = Session(
            self._wire,
            settings,
            "dev-1",
            Will("fedmq/f/status/dev-1", b"gone"),
            False,
            "5" if self._mqtt5 else "3.1.1",
            MessageLimit(_LIMIT),
            self._events.append,
        )
        if number % 16 < 14:  # else it has to say so first
            self._write(self._packet(0x20, b"\0\0" + self._properties(b"")))
            require(self._session.connected, "a broker that is in order is not reached")
            self._session.subscribe(("fedmq/f/model", "fedmq/f/aggregator"))
            for sent in range(3):
                self._session.publish("fedmq/f/update/dev-1", b"%d" % sent, False, 1)
            self._socket.reads = number // 8 % 4 != 0

    def step(self, choices: Choices) -> None:
        """One input: a packet, altered or not, in one piece or with the next."""
        kind, how = choices.byte(), choices.byte()
        if not (self._wild or choices.chance(2)):  # so that most of them last a while
            kind, how = kind % 120, how & 127
        if kind >= 252:
            self._socket.closed = choices.below(16) == 0
        data = self._some(kind, choices)
        if how >= 192:
            data, self._in_order = altered_bytes(data, choices), False
        elif how >= 176:
            data = data[: choices.number(3) % (len(data) + 1)]
            self._in_order = False
        elif how >= 160:
            data, self._in_order = choices.bytes(choices.below(40)), False
        place = choices.number(3) % (len(data) + 1) if how & 1 else len(data)
        self._write(data[:place])
        if place < len(data) and not self.over:
            self._write(data[place:])

    def check(self) -> None:
        """Messages are those that were sent, and nothing grows."""
        require_bounded(self._session)

    def close(self) -> None:
        """Let it go."""
        self._session.discard()

    def _write(self, data: bytes) -> None:
        self._socket.written += data
        for _ in range(200):
            waiting = len(self._socket.written)
            self._session.work()
            self._read_events()
            if self._session.ended is not None or not self._socket.written:
                break
            require(len(self._socket.written) < waiting, "it reads no further")
        if self._session.ended is not None:
            said = self._session.ended
            require(isinstance(said, Disconnected) and 0 < len(said.reason) <= 1000, f"why it ended: {said}")
            require(self._wire.closed, "it has ended and is not closed")
            require(not self._in_order or self._socket.closed or not self._session.connected, said.reason)
            self.over = True

    def _read_events(self) -> None:
        for event in self._events:
            require(isinstance(event, Message | Connected | Refused), f"an event of the type {type(event).__name__}")
            if isinstance(event, Message) and self._in_order:
                require(self._sent, "a message that nobody sent")
                require((event.topic.encode(), event.payload) == self._sent.pop(0), "a message that is another")
        self._events.clear()

    def _some(self, kind: int, choices: Choices) -> bytes:
        if kind < 100 or kind >= 245:
            topic, payload = choices.pick(payloads())
            if choices.chance(3):
                payload = _LARGE
            return self._publish(topic.encode(), payload, choices.number(2) if choices.below(2) else 0)
        if kind < 120:
            return self._packet(0xC0, b"")
        self._in_order = False
        body = choices.pick((b"\0\0", b"\0\1", b"\0\1\0", b"", b"\0\1\x80", b"\xff\xff\x87\0", choices.bytes(5)))
        if kind < 140:  # PUBACK, PUBREC, PUBREL, PUBCOMP
            return self._packet(choices.pick((0x40, 0x40, 0x50, 0x62, 0x70)), body)
        if kind < 160:  # SUBACK, UNSUBACK
            codes = choices.pick((b"\0\1", b"\x80", b"\x87\1", b""))
            middle = self._properties(self._some_properties(choices)) if choices.below(2) else self._properties(b"")
            return self._packet(choices.pick((0x90, 0xB0)), choices.pick((b"\0\1", b"\0\2", body[:2])) + middle + codes)
        if kind < 175:  # CONNACK
            flags = choices.pick((b"\0\0", b"\1\0", b"\0\5", b"\0\x84", b"\2\0"))
            return self._packet(0x20, flags + self._properties(self._some_properties(choices)))
        if kind < 190:  # PINGREQ, PINGRESP, DISCONNECT, AUTH
            return self._packet(choices.pick((0xC0, 0xD0, 0xC0, 0xD0, 0xE0, 0xF0)), b"")
        if kind < 205:  # DISCONNECT, AUTH with a reason
            code = choices.pick((b"\x8e", b"\x95", b"\x87", b"\0", b"\x01", choices.bytes(1)))
            return self._packet(choices.pick((0xE0, 0xF0)), code + self._properties(self._some_properties(choices)))
        if kind < 220:  # what only a client may send, and what nobody may
            return self._packet(choices.pick((0x10, 0x82, 0xA2, 0x00, 0x0F)), body)
        if kind < 235:  # a size, and little behind it
            announced = choices.pick(
                (127, 128, 16_384, _READ_AHEAD, _LIMIT, _LIMIT + 70_000, 268_435_455, choices.number(3))
            )
            return bytes((choices.pick((0x30, 0x32, 0x34, 0x20, 0x90)),)) + _length(announced) + choices.bytes(20)
        return choices.bytes(choices.below(60))

    def _publish(self, topic: bytes, payload: bytes, packet_id: int) -> bytes:
        body = struct.pack("!H", len(topic)) + topic + (struct.pack("!H", packet_id) if packet_id else b"")
        self._sent.append((topic, payload))
        return self._packet(0x32 if packet_id else 0x30, body + self._properties(b"") + payload)

    def _properties(self, properties: bytes) -> bytes:
        return _length(len(properties)) + properties if self._mqtt5 else b""

    def _some_properties(self, choices: Choices) -> bytes:
        """A few properties that stand where they may, or may not."""
        known: Sequence[bytes] = (
            *(b"\x1f\0\4nope", b"\x21\0\1", b"\x21\0\0", b"\x27\0\0\0\x10", b"\x27\0\0\0\0", b"\x27\xff\xff\xff\xff"),
            *(b"\x12\0\3abc", b"\x13\0\1", b"\x13\0\0", b"\x22\0\1", b"\x24\0", b"\x25\0", b"\x11\0\0\0\0"),
            *(b"\x26\0\1a\0\1b", b"\x1a\0\3etc", b"\x1c\0\1x", b"\x0b\x80\x80\x80\x80\1", b"\x1f\0\2\xff\xfe", b"\x7f"),
        )
        return b"".join(choices.pick(known) for _ in range(choices.below(4)))

    def _packet(self, first: int, body: bytes) -> bytes:
        return bytes((first,)) + _length(len(body)) + body


def _length(count: int) -> bytes:
    encoded = bytearray()
    while count > 127:
        encoded.append(count & 127 | 128)
        count >>= 7
    return bytes((*encoded, count))
