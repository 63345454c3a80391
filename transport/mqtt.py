"""A link over a real MQTT broker, on paho-mqtt without its thread."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections import deque
from dataclasses import replace
from selectors import EVENT_READ, DefaultSelector

from fedmq.schemas.errors import TransportError
from fedmq.transport.certificate import Certificate, of_the_broker
from fedmq.transport.link import Connected, Disconnected, Event, Message, Will
from fedmq.transport.mqtt_limit import MessageLimit
from fedmq.transport.mqtt_login import Login
from fedmq.transport.mqtt_reasons import CUT_AGAIN, is_of_login, network_said
from fedmq.transport.mqtt_retry import Retry
from fedmq.transport.mqtt_session import Session
from fedmq.transport.mqtt_settings import MqttSettings
from fedmq.transport.mqtt_socket import Carried, Dial, Wire, dial

__all__ = ["MqttLink", "MqttSettings"]

# Topic and MQTT 5 properties of an incoming packet, beside its payload.
_ENVELOPE_BYTES = 64 * 1024
# A poll that waits no longer may still have to get past acknowledgements before it comes to a message.
_PATIENCE_SECONDS = 0.05
# What flush keeps of incoming messages before it gives up.
_KEPT_BYTES = 64 << 20
_CLOSE_SECONDS = 1.5
# Publishes between two polls that are sent at once. More are a burst, as of replies after a commit: they go out
# together at the next poll, because the broker would else be woken for every one of them.
_ONE_BY_ONE = 8
_AGAIN_SECONDS = 600.0  # within which a connection that is cut without a word is cut again
_NOT_IN_A_TOPIC = re.compile(r"[+#\0]")


class MqttLink:
    """One client's connection to an MQTT broker; see `Link` for what each part means.

    Every connection is a new paho client on a new socket, so nothing that was queued for one is ever sent on the next.
    Looking the broker's name up is the only thing that can hold `poll` longer than it is told.
    """

    def __init__(self, settings: MqttSettings, client_id: str, will: Will | None = None, durable: bool = False) -> None:
        self._settings = settings
        self._client_id = client_id
        self._will = will
        self._durable = durable
        self._events: deque[Event] = deque()
        self._kept_bytes = 0
        self._published = 0  # since the last poll
        self._carried = Carried()
        self._selector: DefaultSelector | None = None
        self._wake_in: socket.socket | None = None
        self._wake_out: socket.socket | None = None
        self._woken = False
        self._login: Login | None = None
        self._shown: Certificate | None = None  # by the broker
        # At most one of the two; with neither, the link pauses until the next attempt.
        self._dial: Dial | None = None
        self._session: Session | None = None
        self._awaited: tuple[socket.socket, int, float] | None = None
        self._limit = MessageLimit(settings.max_message_bytes)
        self._cut_at = float("-inf")
        self._retry = Retry(settings.mqtt_version, settings.reconnect_max_seconds)

    @property
    def max_message_bytes(self) -> int:
        """The largest payload that `publish` takes now."""
        return self._limit.bytes

    @property
    def in_flight(self) -> int:
        """How many publishes at QoS 1 the broker has not acknowledged."""
        return self._session.in_flight if self._session is not None else 0

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes sent and received on all connections so far, within TCP and TLS."""
        return self._carried.sent, self._carried.received

    @property
    def certificates(self) -> list[Certificate]:
        """Those in use, as far as they can be looked at: the own one, and what the broker showed last."""
        own = self._login.certificate if self._login is not None else None
        return [one for one in (own, self._shown) if one is not None]

    def open(self) -> None:
        """Start to connect. Raises ConfigError for settings, files or a password that cannot work.

        TransportError for a will or a client id that MQTT does not have.
        """
        if self._selector is not None:
            return
        self._settings.check()
        if self._will is not None and (len(self._will.payload) > 65535 or not _publishable(self._will.topic)):
            raise TransportError(
                f"the will for {self._will.topic!r} is none: a topic without + and #, up to 65535 bytes"
            )
        if not self._client_id or len(self._client_id.encode()) > 65535:
            raise TransportError(f"{self._client_id[:80]!r} is no client id: 1 to 65535 bytes of UTF-8 are needed")
        self._login = Login(self._settings)
        self._selector = DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_in, EVENT_READ)

    def poll(self, timeout: float) -> Event | None:
        """The next event, or None."""
        if self._published:
            self._push()
        if not self._events:
            self._await_event(time.monotonic() + timeout)
        self._woken = False
        if not self._events:
            return None
        event = self._events.popleft()
        if not self._events:
            self._kept_bytes = 0
        return event

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        """Hand a message to the connection; False, and nothing is kept, while there is none.

        Raises TransportError for a payload larger than what may be sent, and for a topic that MQTT does not have.
        """
        if len(payload) > self._limit.bytes:
            raise TransportError(
                f"{topic}: a message of {len(payload)} bytes, the limit is {self._limit.bytes}; send less at once, or"
                " raise max_message_bytes and the broker's packet limit"
            )
        if qos not in (0, 1) or not _publishable(topic):
            raise TransportError(f"{topic!r} at QoS {qos} cannot be published: a topic without + and #, and QoS 0 or 1")
        if self._session is None or not self._session.connected:
            return False
        taken = self._session.publish(topic, payload, retain, qos)
        self._published += 1
        if self._published <= _ONE_BY_ONE:
            self._session.push()
        return taken and self._still_there()

    def subscribe(self, *topics: str) -> None:
        """Ask for topics, at QoS 1. Raises TransportError for a filter that MQTT does not have."""
        if self._session is not None and self._session.connected:
            try:
                self._session.subscribe(topics)
            except ValueError as error:
                raise TransportError(f"cannot subscribe to {', '.join(topics)}: {error}") from error
            self._still_there()

    def unsubscribe(self, *topics: str) -> None:
        """Stop topics. Raises TransportError for a filter that MQTT does not have."""
        if self._session is not None and self._session.connected:
            try:
                self._session.unsubscribe(topics)
            except ValueError as error:
                raise TransportError(f"cannot unsubscribe from {', '.join(topics)}: {error}") from error
            self._still_there()

    def flush(self, timeout: float) -> bool:
        """Work until the broker has taken every publish; False also when the connection was lost, or is not there.

        Gives up early when 64 MiB of messages have come meanwhile.
        """
        deadline = time.monotonic() + timeout
        self._push()
        session = self._session
        while session is not None and session.connected and session is self._session and not session.settled:
            left = deadline - time.monotonic()
            if left <= 0 or self._kept_bytes > _KEPT_BYTES:
                return False
            self._work(left)
        return session is not None and session.connected and session is self._session

    def wake(self) -> None:
        """Make `poll` return soon. From any thread or signal handler."""
        wake_out = self._wake_out  # which `close` may set to None at any moment
        if wake_out is not None:
            # Full: it is awake anyway. Closed: there is nobody to wake.
            with contextlib.suppress(OSError):
                wake_out.send(b"\0")

    def close(self) -> None:
        """Say goodbye and end the link; what is queued goes out first if that takes no more than a second or so."""
        if self._selector is None or self._wake_in is None or self._wake_out is None:
            return
        self._selector.unregister(self._wake_in)
        if self._session is not None:
            if self._session.connected:
                # Whatever fails in a goodbye, the end is the same.
                with contextlib.suppress(Exception):
                    self._session.goodbye(self._selector.select, _CLOSE_SECONDS)
            self._session.discard()
        if self._dial is not None:
            self._dial.close()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()
        self._selector = self._session = self._dial = self._wake_in = self._wake_out = None
        self._events.clear()

    def _await_event(self, deadline: float) -> None:
        while not self._events and self._selector is not None:
            left = deadline - time.monotonic()
            moved = self._work(0.0 if self._woken else max(left, 0.0))
            if self._woken or left <= (-_PATIENCE_SECONDS if moved else 0.0):
                return

    def _push(self) -> None:
        """Send what was published since the last time."""
        self._published = 0
        if self._session is not None:
            self._session.push()
            self._still_there()

    def _work(self, timeout: float) -> bool:
        """Do what can be done within `timeout` seconds, one step; whether anything moved."""
        now = time.monotonic()
        if self._login is not None:
            self._login.remind(now)
        if self._session is not None:
            pending = self._session.pending
            moved = self._wait(0.0 if pending else min(timeout, self._session.patience)) or pending
            self._session.work()
            self._still_there()
        elif self._dial is not None and self._awaited is not None and self._selector is not None:
            sock, events, until = self._awaited
            self._selector.register(sock, events)
            moved = self._wait(min(timeout, max(until - now, 0.0)))
            self._selector.unregister(sock)
            if moved or time.monotonic() >= until:
                self._go_on(self._dial, on_time=moved)
        else:
            moved = self._wait(min(timeout, max(self._retry.at - now, 0.0)))
            if time.monotonic() >= self._retry.at:
                assert self._login is not None
                settings, context = self._settings, self._login.context()
                self._dial = dial(settings.host, settings.port, context, settings.connect_timeout_seconds)
                self._go_on(self._dial, on_time=True)
        return moved

    def _wait(self, timeout: float) -> bool:
        """Wait for the socket in hand, or for `wake`; whether the socket is ready."""
        assert self._selector is not None
        ready = False
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._wake_in:
                self._woken = True
                with contextlib.suppress(BlockingIOError):
                    while self._wake_in.recv(4096):
                        pass
            else:
                ready = True
        return ready

    def _go_on(self, attempt: Dial, *, on_time: bool) -> None:
        """Take an attempt to connect one step further, up to the session."""
        assert self._selector is not None
        assert self._login is not None
        try:
            self._awaited = next(attempt) if on_time else attempt.throw(TimeoutError())
        except StopIteration as connected:
            self._dial = None
            if isinstance(connected.value, ssl.SSLSocket):
                self._shown = of_the_broker(connected.value, self._settings.where)
            most = self._settings.most_received_bytes + _ENVELOPE_BYTES
            wire = Wire(connected.value, self._selector, most, self._carried)
            self._session = Session(
                wire,
                self._login.settings(),
                self._client_id,
                self._will,
                self._durable,
                self._retry.version,
                self._limit,
                self._emit,
            )
            self._still_there()
        except (OSError, ValueError) as error:
            self._dial = None
            self._retry.failed()
            said = network_said(error, self._settings.where)
            self._events.append(Disconnected(said, login_refused=is_of_login(error)))

    def _emit(self, event: Event) -> None:
        if isinstance(event, Message):
            self._kept_bytes += len(event.payload)
        elif isinstance(event, Connected):
            self._retry.connected()
        self._events.append(event)

    def _still_there(self) -> bool:
        """Whether the session goes on; if it has ended, say so and arrange for the next."""
        session = self._session
        if session is None or session.ended is None:
            return session is not None
        self._session = None
        session.discard()
        reason = session.ended
        if session.unexplained:
            now = time.monotonic()
            if now < self._cut_at + _AGAIN_SECONDS:
                reason = replace(reason, reason=f"{reason.reason}, again; {CUT_AGAIN}")
            self._cut_at = now
        if session.connected and self._limit.ended(session.largest_on_its_way, for_its_size=session.packet_too_large):
            reason = replace(reason, reason=f"{reason.reason}; now with messages of at most {self._limit.bytes} bytes")
        if self._retry.failed(version_refused=session.version_refused):
            reason = replace(reason, reason=f"{reason.reason}; now with MQTT {self._retry.version}")
        self._events.append(reason)
        return False


def _publishable(topic: str) -> bool:
    try:
        return 0 < len(topic.encode()) < 65536 and _NOT_IN_A_TOPIC.search(topic) is None
    except UnicodeEncodeError:
        return False
