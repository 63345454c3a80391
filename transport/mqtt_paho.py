"""The paho client of one connection, ready to send CONNECT."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fedmq.transport.link import Will
from fedmq.transport.mqtt_packets import MalformedPacketError, Packet, PacketReader, Publish
from fedmq.transport.mqtt_retry import MqttVersion
from fedmq.transport.mqtt_settings import MqttSettings
from fedmq.transport.mqtt_socket import Wire

__all__ = ["IN_FLIGHT", "PahoClient"]

IN_FLIGHT = 20
"""Publishes without a PUBACK: Mosquitto's own default."""

# At a time, for a peer that sends without end.
_READS = 100
_PUBACK = struct.Struct("!BBH")
_PUBACK_FIRST = 0x40
# PUBACKs in one write: so few that the wire gathers them, because it may take only a part of a large write.
_TOGETHER = 1000
_PUBLISH_FIRST = 0x30
# Of a packet whose length takes two bytes at most.
_SMALL_BYTES = (1 << 14) - 1
_TAKEN = ReasonCode(PacketTypes.PUBACK)
_NO_PROPERTIES = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]
# How long an MQTT 5 broker keeps a durable session after the connection ended.
_SESSION_SECONDS = 3600


class PahoClient(Client):
    """A client on a socket that is connected already.

    Some of its methods go where paho's public face does not lead; the tests notice if paho changes there.

    Attributes:
        on_packet: called with each PUBLISH, in place of `on_message`.

    """

    def __init__(
        self, wire: Wire, settings: MqttSettings, client_id: str, will: Will | None, durable: bool, version: MqttVersion
    ) -> None:
        self.on_packet: Callable[[Publish], None] = lambda packet: None
        self._reader = PacketReader(wire, mqtt5=version == "5")
        self._to_acknowledge: list[int] = []
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if version == "5" else MQTTProtocolVersion.MQTTv311,
            clean_session=None if version == "5" else not durable,
            reconnect_on_failure=False,  # else it would connect again by itself, with MQTT 3.1
        )
        self._wire = wire
        self._settings = settings
        self._durable = durable
        self.max_inflight_messages_set(IN_FLIGHT)
        if settings.username is not None:
            self.username_pw_set(settings.username, settings.password)
        if will is not None:
            self.will_set(will.topic, will.payload, qos=1, retain=True)

    def greet(self) -> None:
        """Send CONNECT."""
        host, port, keepalive = self._settings.host, self._settings.port, self._settings.keepalive_seconds
        if self.protocol == MQTTProtocolVersion.MQTTv5:
            wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            wishes.SessionExpiryInterval = _SESSION_SECONDS if self._durable else 0
            # The broker then keeps back what would only make this side break off.
            wishes.MaximumPacketSize = self._wire.max_packet_bytes
            self.connect(host, port, keepalive, clean_start=not self._durable, properties=wishes)
        else:
            self.connect(host, port, keepalive)

    def allow_in_flight(self, publishes: int) -> None:
        """Heed the broker's Receive Maximum: paho does not, and its setter is for before CONNECT."""
        self._max_inflight_messages = publishes

    @property
    def unsent_packets(self) -> int:
        """How many packets wait until the network takes more."""
        return len(self._out_packet)

    def heard(self) -> None:
        """Something moves, so the answer to a PINGREQ may take its time: it can be behind a large message."""
        self._ping_t = 0.0

    def send_once(self, topic: bytes, payload: bytes, retain: bool) -> bool:
        """Send a small PUBLISH at QoS 0, past paho's queue and its callbacks; False, and nothing is sent, if it cannot.

        paho takes three times as long for it, and an aggregator answers a thousand clients at once.
        """
        properties = b"\0" if self.protocol == MQTTProtocolVersion.MQTTv5 else b""
        size = 2 + len(topic) + len(properties) + len(payload)
        if size > _SMALL_BYTES or self.want_write():
            return False
        length = bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80, size >> 7))
        first = bytes((_PUBLISH_FIRST | retain,))
        try:
            self._wire.send(b"".join((first, length, len(topic).to_bytes(2), topic, properties, payload)))
        except OSError:  # paho meets it again, and says what it means
            return False
        return True

    def _create_socket(self) -> Wire:
        return self._wire

    def _packet_read(self) -> MQTTErrorCode:
        """All packets that are there, up to the read that brings a message; paho calls it to read one."""
        wire, reader = self._wire, self._reader
        try:
            for _ in range(_READS):
                more = reader.read()
                with self._msgtime_mutex:
                    self._last_bytes_received = time.monotonic()
                while not wire.closed and (packet := reader.take()) is not None:
                    code = self._take(packet)
                    if code > 0:
                        return code
                self._acknowledge()
                if not more or wire.held or wire.closed:
                    break
        except BlockingIOError:
            pass
        except MalformedPacketError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        except OSError:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        return MQTTErrorCode.MQTT_ERR_AGAIN

    def _take(self, packet: Packet | Publish) -> MQTTErrorCode:
        if isinstance(packet, Publish):
            self.on_packet(packet)
            if packet.packet_id:
                self._to_acknowledge.append(packet.packet_id)
        else:
            if packet.first == _PUBACK_FIRST and len(packet.body) == 2:
                return self._acknowledged(int.from_bytes(packet.body))
            self._in_packet["command"], self._in_packet["packet"] = packet.first, bytearray(packet.body)
            try:
                return self._packet_handle()
            except MalformedPacket as error:
                raise MalformedPacketError(str(error)) from error
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _acknowledge(self) -> None:
        """Send the PUBACKs of what one read brought, past paho's queue unless something is in it."""
        packet_ids, self._to_acknowledge = self._to_acknowledge, []
        for first in range(0, len(packet_ids), _TOGETHER):
            some = packet_ids[first : first + _TOGETHER]
            if not self.want_write():
                try:
                    self._wire.send(b"".join([_PUBACK.pack(_PUBACK_FIRST, 2, packet_id) for packet_id in some]))
                except BlockingIOError:
                    pass
                else:
                    continue
            for packet_id in some:
                self._send_puback(packet_id)

    def _acknowledged(self, packet_id: int) -> MQTTErrorCode:
        """A PUBACK without a reason: taken. paho would first build properties and a reason code for each."""
        with self._out_message_mutex:
            if packet_id in self._out_messages:
                return self._do_on_publish(packet_id, _TAKEN, _NO_PROPERTIES)
        return MQTTErrorCode.MQTT_ERR_SUCCESS
