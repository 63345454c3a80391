"""What tests of links have in common: waiting for events, and a broker that misbehaves on purpose."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from fedmq.transport.link import Connected, Event, Link, Message

E = TypeVar("E", bound=Event)
L = TypeVar("L", bound=Link)

PATIENCE = 20.0


RunMosquitto = Callable[..., str]
"""Starts a Mosquitto with these lines in its configuration; returns its url."""


def expect(link: Link, kind: type[E], seconds: float = PATIENCE) -> E:
    """The next event of this kind; others are dropped. In virtual time the deadline passes at once."""
    deadline = time.monotonic() + seconds
    seen: list[Event] = []
    while (left := deadline - time.monotonic()) > 0:
        event = link.poll(left)
        if isinstance(event, kind):
            return event
        if event is not None:
            seen.append(event)
        elif type(link).__module__.endswith("memory"):
            break
    raise AssertionError(f"no {kind.__name__} came, only {[type(event).__name__ for event in seen]}")


def opened(link: L) -> L:
    """Open a link and wait until it is connected."""
    link.open()
    expect(link, Connected)
    return link


def subscribed(link: Link, *topics: str) -> None:
    """Subscribe to topics that nothing is retained on, and wait until the broker has done it."""
    link.subscribe(*topics)
    fence(link, topics[0].split("/")[0] + "/subscribed")


def fence(link: Link, topic: str) -> list[Message]:
    """All messages that come before one that this link sends to itself on `topic`.

    Brokers keep the order within a topic; the embedded one only there, so what is expected has to be taken before.
    """
    link.subscribe(topic)
    assert link.publish(topic, b"fence")
    before: list[Message] = []
    while (message := expect(link, Message)).topic != topic:
        before.append(message)
    link.unsubscribe(topic)
    return before


def take(link: Link, count: int) -> list[Message]:
    """The next `count` messages."""
    return [expect(link, Message) for _ in range(count)]


def read_exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_packet(peer: socket.socket) -> tuple[int, bytes]:
    """One MQTT packet: its first byte and what follows the length."""
    (first,) = read_exactly(peer, 1)
    length, shift = 0, 0
    while True:
        (byte,) = read_exactly(peer, 1)
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return first, read_exactly(peer, length)


@contextlib.contextmanager
def scripted_broker(*scripts: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on the port that it yields: each connection in turn is given to the next script, then closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE)
    failures: list[BaseException] = []
    peers: list[socket.socket] = []

    def serve() -> None:
        for script in scripts:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peers.append(peer)
            peer.settimeout(PATIENCE)
            with peer:
                try:
                    script(peer)
                except (EOFError, OSError):
                    pass
                except BaseException as error:  # an assertion in a script is a failure of the test
                    failures.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # Wakes accept and recv, where closing would not.
        for sock in (listener, *peers):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
        listener.close()
    if failures:
        raise failures[0]
