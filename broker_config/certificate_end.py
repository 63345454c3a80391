"""When the broker's certificate ends: devices refuse it then, each by itself, and the broker's log does not say why."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from fedmq.broker_config.provision.private_files import read_private
from fedmq.schemas.errors import ConfigError, StoreError

__all__ = ["CertificateEnd"]

_AGAIN = timedelta(days=1)


class CertificateEnd:
    """Looks at a certificate once a day.

    Args:
        path: the certificate, PEM; it may be renewed meanwhile.
        days: how long before its end something is said.
        out: the provisioned folder, as the command that renews it is told.

    """

    def __init__(self, path: Path, days: int, out: str) -> None:
        self._path = path
        self._days = days
        self._out = out
        self._looked: datetime | None = None

    def look(self, now: datetime) -> str | None:
        """A warning, for people, at most once a day; None while there is nothing to say.

        Wants to be called again and again. `now` has a zone.
        """
        # Either way, because clocks are set.
        if self._looked is not None and abs(now - self._looked) < _AGAIN:
            return None
        first, self._looked = self._looked is None, now
        try:
            from fedmq.broker_config.provision.certificates import read_identity
        except ImportError:
            missing = (
                'nobody watches when the broker\'s certificate ends: "pip install fedmq[secure]" installs what reads it'
            )
            return missing if first else None
        try:
            until = read_identity(read_private(self._path) or b"", self._path).until
        except (ConfigError, StoreError) as error:
            return str(error)
        if until - now > timedelta(days=self._days):
            return None
        at = f"{until:%Y-%m-%d %H:%M} UTC"
        what = (
            f"ended at {at}: no device connects any more" if until <= now else f"ends at {at}; no device connects then"
        )
        return f"the broker's certificate {what}; `fedmq provision --out {self._out} --renew` renews it"
