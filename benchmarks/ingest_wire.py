"""A few lines of MQTT 3.1.1 on a plain socket, so that what measures costs less than what is measured."""

from __future__ import annotations

import mmap
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Progress", "connect", "length", "packets", "packets_in", "publish_head", "subscribe"]


class Progress:
    """How many messages have arrived, and when the last of them, shared between processes through a file."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 16)

    def set(self, count: int) -> None:
        struct.pack_into("=Qd", self._map, 0, count, time.monotonic())

    @property
    def count(self) -> int:
        return int(struct.unpack_from("=Q", self._map, 0)[0])

    @property
    def at(self) -> float:
        return float(struct.unpack_from("=d", self._map, 8)[0])


def length(count: int) -> bytes:
    """MQTT's variable-length integer."""
    encoded = bytearray()
    while count > 127:
        encoded.append(count & 127 | 128)
        count >>= 7
    return bytes([*encoded, count])


def connect(port: int, client_id: str) -> socket.socket:
    """A connection that the broker has accepted, without a keepalive."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = b"\0\4MQTT\4\2\0\0" + struct.pack("!H", len(client_id)) + client_id.encode()
    sock.sendall(b"\x10" + length(len(body)) + body)
    if sock.recv(4, socket.MSG_WAITALL) != b"\x20\2\0\0":
        raise SystemExit("the broker does not accept a connection")
    return sock


def subscribe(sock: socket.socket, *topics: str) -> None:
    """Ask for topics at QoS 0: whoever watches need not acknowledge."""
    body = b"\0\1" + b"".join(struct.pack("!H", len(topic)) + topic.encode() + b"\0" for topic in topics)
    sock.sendall(b"\x82" + length(len(body)) + body)


def publish_head(topic: str, packet_id: int, size: int) -> bytes:
    """What stands before a payload of this size in a PUBLISH at QoS 1."""
    variable = struct.pack("!H", len(topic)) + topic.encode() + struct.pack("!H", packet_id)
    return b"\x32" + length(len(variable) + size) + variable


def packets(sock: socket.socket) -> Iterator[tuple[str, bytes]]:
    """Topic and payload of what comes at QoS 0, for ever; TimeoutError as the socket's timeout says."""
    data = bytearray()
    while True:
        yield from packets_in(data)
        more = sock.recv(1 << 20)
        if not more:
            raise SystemExit("the broker closed the connection")
        data += more


def packets_in(data: bytearray) -> Iterator[tuple[str, bytes]]:
    """Topic and payload of what has come whole at QoS 0; it is taken out of `data`, as is any other packet."""
    while True:
        size, head = _announced(data)
        if not head or len(data) < head + size:
            return
        body = bytes(data[head : head + size])
        first = data[0]
        del data[: head + size]
        if first & 0xF0 == 0x30:
            (topic,) = struct.unpack_from("!H", body)
            yield body[2 : 2 + topic].decode(), body[2 + topic :]


def _announced(data: bytearray) -> tuple[int, int]:
    """Size of the first packet's body and of the head before it; (0, 0) while that is incomplete."""
    size = shift = 0
    for place in range(1, min(len(data), 5)):
        size |= (data[place] & 127) << shift
        shift += 7
        if data[place] < 128:
            return size, place + 1
    return 0, 0
