"""Names and addresses of a broker, as they stand in its certificate and in urls."""

from __future__ import annotations

import ipaddress
import re

from fedmq.schemas.errors import ConfigError

__all__ = ["address_of", "broker_url", "check_host"]

_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_MOST = 253


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that this is, None for a name.

    None too for one with a zone (`fe80::1%eth0`): a zone may be any text, names an interface of one machine only, and
    stands in no certificate.
    """
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        return None


def check_host(host: str) -> str:
    """The host itself, if devices can reach a broker under it; raises ConfigError if it is none."""
    labels = host.removesuffix(".").split(".")
    named = len(host) <= _MOST and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    if address_of(host) is None and not named:
        raise ConfigError(
            f"--host {host!r}: expected a host name such as broker.example.org or an IP address,"
            " without scheme, port and zone"
        )
    return host


def broker_url(host: str, port: int) -> str:
    """Where devices find the broker."""
    address = address_of(host)
    return f"mqtts://[{host}]:{port}" if address is not None and address.version == 6 else f"mqtts://{host}:{port}"
