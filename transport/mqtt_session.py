"""One MQTT connection from CONNECT to its end, on a paho client of its own that nothing outlives."""

from __future__ import annotations

import time
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fedmq.transport.link import Connected, Disconnected, Event, Message, Refused, Will
from fedmq.transport.mqtt_limit import MessageLimit
from fedmq.transport.mqtt_packets import Publish
from fedmq.transport.mqtt_paho import IN_FLIGHT, PahoClient
from fedmq.transport.mqtt_reasons import (
    LOGIN_REFUSED,
    PACKET_TOO_LARGE,
    TAKEN_OVER,
    UNSUPPORTED_VERSION,
    broker_said,
    connection_said,
    is_of_login,
)
from fedmq.transport.mqtt_retry import MqttVersion
from fedmq.transport.mqtt_settings import MqttSettings
from fedmq.transport.mqtt_socket import Wire

__all__ = ["Session"]

# What AWS IoT Core takes in one SUBSCRIBE.
_FILTERS_PER_SUBSCRIBE = 8
# Packets that wait for a broker which sends and does not read. So many messages may be without their PUBACK: one that
# reads at all is never owed more.
_MOST_UNSENT = 65_535


class Session:
    """One connection. When it ends, what was not sent ends with it.

    Attributes:
        connected: the broker has accepted it.
        ended: why it is over, None as long as it is not.
        packet_too_large: it ended because of a packet's size, as the broker said.
        unexplained: the broker had accepted it, and cut it without a word.
        version_refused: it ended without an answer, or with the answer that this version of MQTT is not spoken.

    """

    def __init__(
        self,
        wire: Wire,
        settings: MqttSettings,
        client_id: str,
        will: Will | None,
        durable: bool,
        version: MqttVersion,
        limit: MessageLimit,
        emit: Callable[[Event], None],
    ) -> None:
        self.connected = False
        self.ended: Disconnected | None = None
        self.version_refused = self.packet_too_large = self.unexplained = False
        self._wire = wire
        self._settings = settings
        self._limit = limit
        self._emit = emit
        self._answer_until = time.monotonic() + settings.connect_timeout_seconds
        self._alive_at = wire.received_at
        self._publishes: dict[int, tuple[str, int]] = {}  # topic and size of those that the broker has not taken
        self._subscribes: dict[int, list[str]] = {}
        self._client = client = PahoClient(wire, settings, client_id, will, durable, version)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_packet = self._on_packet
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.greet()
        self._watch()

    @property
    def patience(self) -> float:
        """Seconds after which `work` has to be called even if nothing moves."""
        if self.connected:
            return max(self._client.keepalive / 10, 0.1)
        return max(self._answer_until - time.monotonic(), 0.0)

    @property
    def pending(self) -> bool:
        """Whether there is something to read that the selector does not see."""
        return self._wire.pending()

    @property
    def in_flight(self) -> int:
        """How many publishes the broker has not acknowledged."""
        return len(self._publishes)

    @property
    def largest_on_its_way(self) -> int:
        """Bytes of the largest payload that the broker has not acknowledged."""
        return max((size for _, size in self._publishes.values()), default=0)

    @property
    def settled(self) -> bool:
        """Whether the broker has taken every publish."""
        return not self._publishes and not self._unsent

    @property
    def _unsent(self) -> bool:
        return self._client.want_write() or self._wire.unsent

    def push(self) -> None:
        """Send what was gathered, as far as the network takes it."""
        if not self._wire.unsent or self._wire.closed:
            return
        try:
            self._wire.push()
        except BlockingIOError:
            pass
        except OSError as error:
            self.unexplained = self.connected and isinstance(error, ConnectionError)
            self._end(connection_said(error, self._settings.where, accepted=self.connected))
        self._watch()

    def work(self) -> None:
        """Read, up to the first message and what came with it, write, and keep alive."""
        self._wire.held = False
        try:
            self._client.loop_read()
            if self._client.want_write():
                self._client.loop_write()
            alive_at = self._wire.received_at
            if self._unsent:
                # The network takes bytes into a full buffer only when the broker takes some out of it.
                alive_at = max(alive_at, self._wire.sent_at)
            if alive_at > self._alive_at:
                self._alive_at = alive_at
                self._client.heard()
            self._client.loop_misc()
        except Exception as error:  # paho's decoders raise whatever a malformed packet makes them raise
            self._end(f"the broker at {self._settings.where} sent a packet that cannot be read: {error!r}")
        if self._client.unsent_packets > _MOST_UNSENT:
            self._end(f"the broker at {self._settings.where} sends, but does not read what it is sent")
        if not self.connected and time.monotonic() >= self._answer_until:
            self._end(
                f"{self._settings.where} took the connection but did not answer in "
                f"{self._settings.connect_timeout_seconds:g} s; is it an MQTT broker, and this port not one for TLS?"
            )
        self.push()
        self._watch()

    def publish(self, topic: str, payload: bytes, retain: bool, qos: int) -> bool:
        """Queue and try to send; False when all 65535 packet ids are waiting for their PUBACK."""
        if qos == 0 and self._client.send_once(topic.encode(), payload, retain):
            return True
        info = self._client.publish(topic, payload, qos, retain)
        taken = info.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
        if qos and taken:
            self._publishes[info.mid] = topic, len(payload)
        self._watch()
        return taken

    def subscribe(self, topics: tuple[str, ...]) -> None:
        """Ask for topics."""
        for start in range(0, len(topics), _FILTERS_PER_SUBSCRIBE):
            some = list(topics[start : start + _FILTERS_PER_SUBSCRIBE])
            _, mid = self._client.subscribe([(topic, 1) for topic in some])
            if mid is not None:
                self._subscribes[mid] = some
        self.push()

    def unsubscribe(self, topics: tuple[str, ...]) -> None:
        """Stop topics."""
        for start in range(0, len(topics), _FILTERS_PER_SUBSCRIBE):
            self._client.unsubscribe(list(topics[start : start + _FILTERS_PER_SUBSCRIBE]))
        self.push()

    def goodbye(self, wait: Callable[[float], object], seconds: float) -> None:
        """Send what is queued and DISCONNECT, for at most `seconds`; `wait` blocks until the wire is ready."""
        until = time.monotonic() + seconds
        self.ended = Disconnected("closed")
        self._wire.lingers = True
        self._client.disconnect()
        while not self._wire.closed and (left := until - time.monotonic()) > 0:
            self._wire.want(EVENT_READ | EVENT_WRITE)
            wait(left)
            # Some brokers read no further while we do not take what they send.
            if not self._wire.skip():
                break
            self._client.loop_write()
        self.discard()
        self._wire.drain(max(until - time.monotonic(), 0.01))

    def discard(self) -> None:
        """Cut the connection and let go of what was not sent, now and not when the garbage collector comes by."""
        client = self._client
        client.on_connect = client.on_disconnect = client.on_publish = client.on_subscribe = None
        client.drop_out_messages()
        self._wire.close()

    def _watch(self) -> None:
        """Notice that paho has closed the wire; else wait for what it wants."""
        if self._wire.closed:
            self._end(f"the connection to {self._settings.where} ended")
        else:
            self._wire.want(EVENT_READ | EVENT_WRITE if self._unsent else EVENT_READ)

    def _end(self, reason: str, *, taken_over: bool = False, login_refused: bool = False) -> None:
        if self.ended is None:
            self.ended = Disconnected(reason, taken_over, login_refused)
            self._wire.close()

    def _on_connect(
        self, client: Client, _: object, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self.version_refused = code.value == UNSUPPORTED_VERSION
            said = broker_said("refused the connection", self._settings.where, code.value, code.getName())
            self._end(said, login_refused=code.value in LOGIN_REFUSED)
            return
        self.connected = True
        largest: int | None = getattr(properties, "MaximumPacketSize", None)
        self._limit.connected(largest)
        self._client.allow_in_flight(min(IN_FLIGHT, getattr(properties, "ReceiveMaximum", IN_FLIGHT)))
        self._emit(Connected(flags.session_present, largest))

    def _on_disconnect(
        self, client: Client, _: object, flags: DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        where, failure = self._settings.where, self._wire.failure
        if flags.is_disconnect_packet_from_server:
            said = broker_said("ended the connection", where, code.value, code.getName())
            self.packet_too_large = code.value == PACKET_TOO_LARGE
            self._end(said, taken_over=code.value == TAKEN_OVER)
        elif failure is not None:
            cut = isinstance(failure, EOFError | ConnectionError)
            self.unexplained, self.version_refused = cut and self.connected, cut and not self.connected
            self._end(connection_said(failure, where, accepted=self.connected), login_refused=is_of_login(failure))
        elif code.getName() == "Keep alive timeout":
            self._end(f"nothing was heard from {where} for {2 * self._client.keepalive} s; the network or it is gone")
        else:
            self.version_refused = not self.connected
            self._end(f"what {where} sends is not MQTT ({code.getName().lower()}); is it an MQTT broker?")

    def _on_packet(self, packet: Publish) -> None:
        try:
            topic = packet.topic.decode()
        except UnicodeDecodeError:
            return  # nobody's topic; a broker should not have let it through
        self._wire.held = True
        self._emit(Message(topic, packet.payload))

    def _on_publish(self, client: Client, _: object, mid: int, code: ReasonCode, properties: Properties | None) -> None:
        topic, size = self._publishes.pop(mid, (None, 0))
        if topic is not None and not code.is_failure:
            self._limit.taken(size)
        elif topic is not None:
            self._emit(Refused(topic, f"the broker refused this publish: {code.getName().lower()}"))

    def _on_subscribe(
        self, client: Client, _: object, mid: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        for topic, code in zip(self._subscribes.pop(mid, []), codes, strict=False):
            if code.is_failure:
                self._emit(Refused(topic, f"the broker refused this subscription: {code.getName().lower()}"))
