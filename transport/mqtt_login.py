"""What a link shows a broker and checks it by, as its files hold it now: so both change without a restart."""

from __future__ import annotations

import logging
import os
import ssl
import time
from dataclasses import replace

from fedmq.schemas.errors import FedMQError
from fedmq.transport.certificate import Certificate, of_this_login
from fedmq.transport.mqtt_settings import MqttSettings

__all__ = ["Login"]

log = logging.getLogger("fedmq.login")

_REMIND_SECONDS = 86_400.0

_Seen = list[tuple[int, int, int] | None]


class Login:
    """Certificates and password for the next connection; those from before, while what is there cannot be used.

    Args:
        settings: that name the files.

    Raises:
        ConfigError: the certificates or the password cannot be used.

    """

    def __init__(self, settings: MqttSettings) -> None:
        self._settings = settings
        self._seen: _Seen | None = self._look()
        self._context = settings.tls_context()
        self._password = self._read()
        self._remind_at = float("-inf")

    @property
    def certificate(self) -> Certificate | None:
        """The one that is shown, as its file holds it now; None if there is none, or it cannot be looked at."""
        cert_file = self._settings.cert_file
        return of_this_login(cert_file) if self._settings.tls and cert_file is not None else None

    def remind(self, now: float) -> None:
        """Say that the certificate ends soon: at the start, and once a day. `now` is time.monotonic()."""
        if now < self._remind_at:
            return
        self._remind_at = now + _REMIND_SECONDS
        certificate, clock = self.certificate, time.time()
        if certificate is not None and certificate.ends_soon(clock):
            log.warning("certificate ends detail=%r", certificate.warning(clock))

    def context(self) -> ssl.SSLContext | None:
        """The TLS context, None for plain TCP; made anew when the files are others."""
        seen = self._look()
        if seen != self._seen:
            try:
                self._context = self._settings.tls_context()
            except FedMQError as error:
                # Also of files that are half copied: they are tried again with every connection.
                self._seen = None
                log.error("certificates from before are used: %s", error)
            else:
                self._seen = seen
                log.info("certificates read again ca_file=%s cert_file=%s", *self._names())
        return self._context

    def settings(self) -> MqttSettings:
        """The settings, with the password as it is now."""
        try:
            password = self._read()
        except FedMQError as error:
            log.error("the password from before is used: %s", error)
        else:
            if password != self._password:
                log.info("password read again username=%s", self._settings.username)
            self._password = password
        return replace(self._settings, password=self._password)

    def _read(self) -> str | None:
        if self._settings.read_password is None:
            return self._settings.password
        password = self._settings.read_password()
        replace(self._settings, password=password).check()
        return password

    def _names(self) -> tuple[object, object]:
        return self._settings.ca_file or "system", self._settings.cert_file

    def _look(self) -> _Seen:
        """What tells one state of the files from another; None for one that cannot be looked at."""
        if not self._settings.tls:
            return []
        ca_file = self._settings.ca_file or ssl.get_default_verify_paths().cafile
        seen: _Seen = []
        for path in (ca_file, self._settings.cert_file, self._settings.key_file):
            if path is None:
                continue
            try:
                state = os.stat(path)
                seen.append((state.st_ino, state.st_mtime_ns, state.st_size))
            except OSError:
                seen.append(None)
        return seen
