"""From the `[broker]` section of federation.toml to a link."""

from __future__ import annotations

from fedmq.broker_config.settings import BrokerSettings
from fedmq.schemas.parts import HEADER_BYTES, LARGEST_MESSAGE_BYTES
from fedmq.transport.link import Will
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_settings import MqttSettings

__all__ = ["check_login", "most_message_bytes", "mqtt_link"]


def most_message_bytes(settings: BrokerSettings) -> int:
    """What is taken in one message: the own ones, and those of a peer that is set to larger ones."""
    return max(settings.data_bytes + HEADER_BYTES, LARGEST_MESSAGE_BYTES)


def mqtt_link(settings: BrokerSettings, client_id: str, *, will: Will | None = None, durable: bool = False) -> MqttLink:
    """A link to the broker that `settings` names, still to be opened; raises ConfigError for an unreadable password."""
    settings.read_password()  # so that a wrong file is a mistake at once, and not when the link is opened
    return MqttLink(_reach(settings), client_id, will, durable)


def check_login(settings: BrokerSettings) -> None:
    """Raise ConfigError for files of the login that cannot be used."""
    settings.read_password()
    _reach(settings).tls_context()


def _reach(settings: BrokerSettings) -> MqttSettings:
    return MqttSettings(
        host=settings.host,
        port=settings.port,
        tls=settings.tls,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        username=settings.username,
        read_password=settings.read_password,
        keepalive_seconds=settings.keepalive_seconds,
        mqtt_version=settings.mqtt_version,
        max_message_bytes=settings.data_bytes + HEADER_BYTES,
        max_received_bytes=most_message_bytes(settings),
        reconnect_max_seconds=settings.reconnect_max_seconds,
    )
