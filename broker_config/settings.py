"""The `[broker]` section of federation.toml: where the broker is and how to log in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from fedmq.schemas.errors import ConfigError

__all__ = ["BrokerSettings"]

_PORTS = {"mqtt": 1883, "mqtts": 8883}
# Of what is no url: no more than a host and a number, so that there is no password in it.
_MAY_BE_SHOWN = re.compile(r"(\w+://)?[^:/?#]*(:\d+)?/?")


class BrokerSettings(BaseModel):
    """How to reach the broker.

    Attributes:
        url: `mqtt://host:1883`, or `mqtts://host:8883` for TLS; the ports are the defaults.
        username: None for a broker that lets anyone in.
        password: never shown. Better in a file of its own, see password_file.
        password_file: a file that holds the password and nothing else; read again with every connection.
        ca_file: PEM file with the authority that signed the broker's certificate; None trusts the system's authorities.
        cert_file: PEM file with this client's certificate, if the broker asks for one; it is read again, as ca_file is.
        key_file: PEM file with its private key, without a pass phrase.
        keepalive_seconds: after this long without traffic each side asks the other for a sign of life.
        mqtt_version: "auto" asks for MQTT 5 and falls back to 3.1.1.
        profile: "standard", or "narrow" for links of a few kilobytes a second: smaller parts, one at a time.
        max_message_bytes: of a model or update in one message, else it goes in parts; 122880, if narrow 57344.
        reconnect_max_seconds: the longest pause between two attempts to connect.

    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = "mqtt://127.0.0.1:1883"
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_seconds: int = Field(default=60, ge=5, le=1200)
    mqtt_version: Literal["auto", "5", "3.1.1"] = "auto"
    profile: Literal["standard", "narrow"] = "standard"
    max_message_bytes: int | None = Field(default=None, ge=16 << 10, le=250_000_000)
    reconnect_max_seconds: float = Field(default=30.0, ge=0.1, le=3600.0)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"

    @property
    def host(self) -> str:
        """Name or address of the broker."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """TCP port of the broker."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def data_bytes(self) -> int:
        """Of a model or an update in one message."""
        if self.max_message_bytes is not None:
            return self.max_message_bytes
        return 56 << 10 if self.profile == "narrow" else 120 << 10

    @property
    def window(self) -> int:
        """Parts that a device has on their way at a time."""
        return 1 if self.profile == "narrow" else 8

    def read_password(self) -> str | None:
        """The password, from its file if there is one; raises ConfigError for a file that cannot be read."""
        if self.password_file is None:
            return None if self.password is None else self.password.get_secret_value()
        try:
            password = self.password_file.read_text(encoding="utf-8-sig").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(
                f"broker.password_file: {self.password_file} cannot be read ({error.strerror}); "
                "write the password into it, readable for this user"
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"broker.password_file: {self.password_file} is not UTF-8 text") from error
        if not password or "\n" in password:
            raise ConfigError(f"broker.password_file: {self.password_file} has to hold one line, the password")
        return password

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        wanted = "write mqtt://host:1883, or mqtts://host:8883 for TLS"
        if "@" in url:
            # Not repeated in the message, because there may be a password in it.
            raise ValueError("a broker url holds no login; set broker.username and broker.password_file instead")
        shown = repr(url) if _MAY_BE_SHOWN.fullmatch(url) else "what is set"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(f"{shown} cannot be read as a url with a port up to 65535; {wanted}") from None
        if parts.scheme not in _PORTS or not parts.hostname or port == 0:
            raise ValueError(f"{shown} is not the url of an MQTT broker; {wanted}")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"the broker url goes on after {parts.netloc!r}; {wanted}")
        return url

    @model_validator(mode="after")
    def _check_together(self) -> BrokerSettings:
        if self.password is not None and self.password_file is not None:
            raise ValueError("both broker.password and broker.password_file are set; keep one of them")
        if self.username is None and (self.password is not None or self.password_file is not None):
            raise ValueError("a broker password is set without broker.username; set both or none")
        files = [name for name in ("ca_file", "cert_file", "key_file") if getattr(self, name) is not None]
        if files and not self.tls:
            raise ValueError(f"broker.{files[0]} is set, but {self.url!r} is not encrypted; write mqtts://")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("broker.cert_file and broker.key_file belong together; set both or none")
        return self
