"""A broker that sends and never reads: what it is owed must not fill the memory."""

from __future__ import annotations

import socket
import threading
from selectors import DefaultSelector

import pytest

from fedmq.transport.link import Event
from fedmq.transport.mqtt_limit import MessageLimit
from fedmq.transport.mqtt_session import Session
from fedmq.transport.mqtt_settings import MqttSettings
from fedmq.transport.mqtt_socket import Wire

PACKETS = {
    "messages to acknowledge": b"\x32\x06\0\1a\0\1x",
    "pings to answer": b"\xc0\0",
}


@pytest.mark.parametrize("kind", PACKETS)
def test_a_broker_that_sends_without_reading_is_left(kind: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, DefaultSelector() as selector:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        events: list[Event] = []
        settings = MqttSettings()
        session = Session(
            Wire(ours, selector, 1 << 20), settings, "dev-1", None, False, "3.1.1", MessageLimit(1 << 20), events.append
        )

        def writes() -> None:
            try:
                theirs.sendall(b"\x20\2\0\0")
                for _ in range(40):
                    theirs.sendall(PACKETS[kind] * 5_000)
            except OSError:
                pass  # it was left

        broker = threading.Thread(target=writes, daemon=True)
        broker.start()
        while session.ended is None and (broker.is_alive() or selector.select(0.0)):
            selector.select(1.0)
            session.work()
            events.clear()
        session.discard()
        broker.join(20)
    assert session.ended is not None
    assert "sends, but does not read" in session.ended.reason
