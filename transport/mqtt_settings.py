"""How to reach one MQTT broker, and what to ask of it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedmq.schemas.errors import ConfigError

__all__ = ["MqttSettings"]


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Everything that a link to an MQTT broker has to be told.

    Attributes:
        host: name or address of the broker.
        port: its TCP port.
        tls: encrypt; the broker's certificate and its name are checked.
        ca_file: PEM file with the authority that signed the broker's certificate; None trusts the system's authorities.
        cert_file: PEM file with this client's certificate, for brokers that ask for one.
        key_file: PEM file with its private key.
        username: None for brokers that let anyone in.
        password: never shown by `repr`.
        read_password: asked for it at every connection, in place of `password`; raises FedMQError where there is none.
        keepalive_seconds: after this long without traffic each side asks the other for a sign of life.
        mqtt_version: "auto" asks for MQTT 5 and falls back to 3.1.1.
        max_message_bytes: the largest payload that is sent; less if the broker takes less.
        max_received_bytes: the largest payload that is taken, what is announced as larger is not read; as much as is
            sent if None.
        reconnect_max_seconds: the longest pause between two attempts to connect.
        connect_timeout_seconds: for each of the two halves of an attempt: reaching the broker, and its answer.

    """

    host: str = "127.0.0.1"
    port: int = 1883
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    read_password: Callable[[], str | None] | None = field(default=None, repr=False)
    keepalive_seconds: int = 60
    mqtt_version: Literal["auto", "5", "3.1.1"] = "auto"
    max_message_bytes: int = 16 << 20
    max_received_bytes: int | None = None
    reconnect_max_seconds: float = 30.0
    connect_timeout_seconds: float = 15.0

    @property
    def where(self) -> str:
        """The broker as people write it."""
        return f"{self.host}:{self.port}"

    @property
    def most_received_bytes(self) -> int:
        """The largest payload that is taken."""
        return self.max_message_bytes if self.max_received_bytes is None else self.max_received_bytes

    def check(self) -> None:
        """Raise ConfigError for what no broker can make work."""
        if not self.host or not 0 < self.port < 65536:
            raise ConfigError(f"{self.where!r} is no broker address: a host and a port from 1 to 65535 are needed")
        if self.mqtt_version not in ("auto", "5", "3.1.1"):
            raise ConfigError(f'mqtt_version is {self.mqtt_version!r}; write "auto", "5" or "3.1.1"')
        if not 0 < self.keepalive_seconds < 65536:
            raise ConfigError(f"keepalive_seconds is {self.keepalive_seconds}; MQTT allows 1 to 65535")
        if not 0 < self.max_message_bytes <= 256_000_000:
            raise ConfigError(f"max_message_bytes is {self.max_message_bytes}; MQTT allows 1 to 256000000")
        if any(len(text.encode()) > 65535 for text in (self.username or "", self.password or "")):
            raise ConfigError("a username or password of more than 65535 bytes does not fit into MQTT")
        if self.password is not None and self.username is None:
            raise ConfigError("a password without a username: MQTT 3.1.1 brokers refuse it; give both or none")

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context that these settings ask for, None for plain TCP; raises ConfigError for unusable files."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        except OSError as error:
            raise ConfigError(
                f"ca_file {self.ca_file} cannot be used: {_detail(error)}; PEM with the broker's authority is needed"
            ) from error
        if self.cert_file is not None:
            try:
                # Without the callback OpenSSL would ask for an encrypted key's pass phrase on the terminal, and wait.
                context.load_cert_chain(self.cert_file, self.key_file, password=lambda: b"")
            except OSError as error:
                files = f"cert_file {self.cert_file} and key_file {self.key_file}"
                raise ConfigError(
                    f"{files} cannot be used: {_detail(error)}; PEM files with a key that has no pass phrase are needed"
                ) from error
        return context


def _detail(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not a usable PEM file ({error.reason or error})"
    return error.strerror or str(error)
