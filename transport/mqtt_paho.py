"""The paho client of one connection, ready to send CONNECT."""

from __future__ import annotations

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fedmq.transport.link import Will
from fedmq.transport.mqtt_retry import MqttVersion
from fedmq.transport.mqtt_settings import MqttSettings
from fedmq.transport.mqtt_socket import Wire

__all__ = ["IN_FLIGHT", "PahoClient"]

IN_FLIGHT = 20
"""Publishes without a PUBACK: Mosquitto's own default."""

# How long an MQTT 5 broker keeps a durable session after the connection ended.
_SESSION_SECONDS = 3600


class PahoClient(Client):
    """A client on a socket that is connected already.

    Three of its methods go where paho's public face does not lead; the tests notice if paho changes there.
    """

    def __init__(
        self, wire: Wire, settings: MqttSettings, client_id: str, will: Will | None, durable: bool, version: MqttVersion
    ) -> None:
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

    def heard(self) -> None:
        """Something moves, so the answer to a PINGREQ may take its time: it can be behind a large message."""
        self._ping_t = 0.0

    def _create_socket(self) -> Wire:
        return self._wire
