"""Clients that try what they are not meant to: paho as it is, with any name, login, certificate, will and filter."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.brokers import PATIENCE

VERSIONS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


@dataclass(frozen=True)
class Login:
    """What a client shows to the broker.

    Attributes:
        username, password: None for none.
        identity: file with certificate and key, None for none.
        authority: file with the authority that it trusts.

    """

    username: str | None
    password: str | None
    identity: Path | None
    authority: Path

    @classmethod
    def of(cls, bundle: Path, username: str) -> Login:
        """That of a bundle."""
        password = (bundle / "password").read_text().rstrip("\n")
        return cls(username, password, bundle / "identity.pem", bundle / "ca.pem")

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority))
        # What newer Pythons ask of a certificate by default.
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.identity is not None:
            context.load_cert_chain(self.identity)
        return context


@dataclass(frozen=True)
class Got:
    """A message that came."""

    topic: str
    payload: bytes = field(repr=False)
    retained: bool


class Peer:
    """One connection; a context manager that makes it, and leaves without a word if it is still there at the end.

    Attributes:
        refusal: why there is no connection; None if there is one.
        got: all messages so far.

    """

    def __init__(
        self,
        login: Login,
        port: int,
        client_id: str,
        *,
        version: str = "5",
        will: str | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.refusal: str | None = None
        self.got: list[Got] = []
        self.client_id = client_id
        self._port = port
        self._connected = False
        self._news = threading.Condition()
        self._ended = self._answered = False
        self._acknowledged: dict[int, bool] = {}
        self._subscribed: set[int] = set()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=VERSIONS[version], reconnect_on_failure=False
        )
        if login.username is not None:
            self._client.username_pw_set(login.username, login.password)
        self._client.max_inflight_messages_set(1000)
        self._client.tls_set_context(context or login.context())
        if will is not None:
            self._client.will_set(will, b"will", 1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe

    @property
    def there(self) -> bool:
        """Whether the connection is up."""
        return self._connected and not self._ended

    def __enter__(self) -> Self:
        try:
            self._client.connect("localhost", self._port, 60)
        except (OSError, ValueError) as error:
            self.refusal = str(error)
            return self
        self._client.loop_start()
        self._wait(lambda: self._answered, "an answer to CONNECT")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.die()
        self._client.loop_stop()

    def die(self) -> None:
        """End the connection without a goodbye, so that the will is published."""
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            self._wait(lambda: self._ended, "the end of the connection")

    def send(self, topics: Iterable[str], payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish to each of these topics; returns when the broker has answered the last."""
        mids = [self._client.publish(topic, payload, qos, retain).mid for topic in topics]
        self._wait(lambda: self._acknowledged.keys() >= set(mids), f"{len(mids)} answers")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool | None:
        """Publish, and wait until the broker has answered; whether it said that it took it. None: it hung up."""
        if not self.there:
            return None
        mid = self._client.publish(topic, payload, 1, retain).mid
        self._wait(lambda: mid in self._acknowledged or not self.there, f"an answer to {topic}")
        return self._acknowledged.get(mid)

    def subscribe(self, *filters: str) -> None:
        """Subscribe, and wait until the broker has answered."""
        if self.there:
            mid = self._client.subscribe([(each, 1) for each in filters])[1]
            self._wait(lambda: mid in self._subscribed or not self.there, f"an answer to {filters}")

    def waits_for(self, condition: Callable[[Got], bool]) -> None:
        """Wait for a message."""
        self._wait(lambda: any(map(condition, self.got)), "a message")

    def is_cut_off(self) -> bool:
        """Whether the broker ends the connection before our patience does."""
        with self._news:
            return self._news.wait_for(lambda: self._ended, PATIENCE)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._news:
            came = self._news.wait_for(condition, PATIENCE)
            assert came, f"{self.client_id[:20]} waited for {what}; it got {[got.topic for got in self.got]}"

    def _on_connect(
        self, client: Client, data: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        with self._news:
            self._connected, self._answered = not reason.is_failure, True
            if reason.is_failure:
                self.refusal = str(reason)
            self._news.notify_all()

    def _on_disconnect(
        self, client: Client, data: Any, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        with self._news:
            if not self._connected:
                self.refusal = self.refusal or f"hung up: {reason}"
            self._ended = self._answered = True
            self._news.notify_all()

    def _on_message(self, client: Client, data: Any, message: MQTTMessage) -> None:
        with self._news:
            self.got.append(Got(message.topic, bytes(message.payload), message.retain))
            self._news.notify_all()

    def _on_publish(
        self, client: Client, data: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        with self._news:
            self._acknowledged[mid] = not reason.is_failure
            self._news.notify_all()

    def _on_subscribe(
        self, client: Client, data: Any, mid: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        with self._news:
            self._subscribed.add(mid)
            self._news.notify_all()
