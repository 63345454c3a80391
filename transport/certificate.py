"""How long a certificate is good for, and when to speak of it: nobody should find out by being shut out."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificate", "of_the_broker", "of_this_login"]

_DAY = 86_400.0
_SOON = 30 * _DAY
_DATED_BACK = 365 * _DAY  # what provisioning makes, for devices whose clock is behind: no part of its lifetime


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate in use.

    Attributes:
        name: which, for people.
        since, until: its lifetime, in seconds since 1970.
        advice: what to do when it ends.

    """

    name: str
    since: float
    until: float
    advice: str

    def ends_soon(self, now: float) -> bool:
        """Whether it ends within 30 days, or within a third of its lifetime if that is less."""
        lifetime = self.until - self.since
        return self.until - now <= min(_SOON, (lifetime - _DATED_BACK if lifetime > _DATED_BACK else lifetime) / 3)

    def ends(self, now: float) -> str:
        """When it ends, such as `2026-12-06, in 9 days`."""
        date, left = time.strftime("%Y-%m-%d", time.gmtime(self.until)), self.until - now
        if left <= 0:
            return f"{date}, which is over"
        return f"{date}, in {left / _DAY:.0f} days" if left >= 2 * _DAY else f"{date}, in {left / 3600:.0f} hours"

    def warning(self, now: float) -> str:
        """That it ends, and what to do, as a sentence."""
        return f"{self.name} ends on {self.ends(now)}; {self.advice}"


def of_this_login(cert_file: Path) -> Certificate | None:
    """What a PEM file holds; None where it cannot be read, or the package cryptography is not installed."""
    try:
        from cryptography import x509

        certificate = x509.load_pem_x509_certificate(cert_file.read_bytes())
    except (ImportError, OSError, ValueError):
        return None
    return Certificate(
        f"the certificate in {cert_file}",
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        "have it renewed where it was made (`fedmq provision --renew`) and put the new one in its place, which counts "
        "from the next connection",
    )


def of_the_broker(connection: ssl.SSLSocket, where: str) -> Certificate | None:
    """What the broker has shown on this connection; None if it was not verified."""
    shown = connection.getpeercert()
    if not shown:
        return None
    since, until = (ssl.cert_time_to_seconds(str(shown[name])) for name in ("notBefore", "notAfter"))
    advice = "its operator has to renew it (`fedmq provision --renew`), or nobody can connect any more"
    return Certificate(f"the certificate of the broker at {where}", since, until, advice)
