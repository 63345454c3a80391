"""What others can read on the way to a broker that is reached without TLS."""

from __future__ import annotations

import ipaddress

from fedmq.broker_config.settings import BrokerSettings

__all__ = ["in_plain_text"]


def in_plain_text(settings: BrokerSettings) -> str | None:
    """What can be read between this machine and the broker, as a sentence; None with TLS, or where it is the same."""
    if settings.tls or _is_here(settings.host):
        return None
    login = ""
    if settings.password is not None or settings.password_file is not None:
        login = f" They read the password of {settings.username!r} too, and can log in with it."
    return (
        f"nothing is encrypted on the way to {settings.url}: others on that network can read models, updates and "
        f"statuses, and change what is not signed; use an mqtts:// url.{login}"
    )


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
