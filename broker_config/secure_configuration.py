"""A mosquitto.conf before it is run: where it listens, and whether it lets in whom `fedmq provision` wants to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedmq.broker_config.provision.mosquitto_configuration import configuration
from fedmq.broker_config.provision.private_files import read_private
from fedmq.broker_config.provision.record import Login, Record
from fedmq.schemas.errors import ConfigError, StoreError
from fedmq.schemas.refusals import kind_of

__all__ = ["SecureConfiguration", "read_configuration"]

# Of these any value is as safe as another. Of all others every line has to stand where it was written: what is missing
# opens the broker, and so may what was added, such as another listener.
_FREE = frozenset({
    *("max_packet_size", "max_inflight_messages", "max_queued_messages", "max_queued_bytes", "max_keepalive"),
    *("max_connections", "memory_limit", "set_tcp_nodelay", "persistence", "persistence_location"),
    *("autosave_interval", "persistent_client_expiration", "log_dest", "log_type"),
})  # fmt: skip
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class SecureConfiguration:
    """A configuration.

    Attributes:
        content: of the file.
        port: that it listens on.
        listen: the address that it listens on.
        weakness: what it means that it is not what was provisioned, for people; None where it is.

    """

    content: bytes
    port: int
    listen: str
    weakness: str | None


def read_configuration(path: Path, logins: Iterable[Login]) -> SecureConfiguration:
    """The configuration in a file.

    Args:
        path: the file.
        logins: it has to ask for one of these.

    Raises:
        ConfigError: it names no port and address to listen on.
        UnusableError: it cannot be read until somebody changes that.
        StoreError: it cannot be read now.

    """
    try:
        content = read_private(path) or b""
    except StoreError as error:
        if isinstance(error.__cause__, OSError):
            raise kind_of(error.__cause__)(str(error)) from error
        raise
    lines = list(_lines(content))
    port, listen = _listener(lines, path)
    faults = min((_faults(lines, list(_lines(_provisioned(login)))) for login in logins), key=len)
    weakness = None
    if faults:
        named = ", ".join(faults[:_SHOWN]) + (f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")
        weakness = (
            f"{path}: it is not as `fedmq provision` writes it ({named}), so whoever reaches port {port} of {listen}"
            " may be able to read and write everything"
        )
    return SecureConfiguration(content, port, listen, weakness)


def _lines(content: bytes) -> Iterator[str]:
    """What Mosquitto reads: not the comments."""
    for line in content.decode(errors="replace").split("\n"):
        if line.strip() and not line.startswith("#"):
            yield line.strip()


def _listener(lines: list[str], path: Path) -> tuple[int, str]:
    for line in lines:
        name, *values = line.split()
        if name == "listener":
            break
    else:
        raise ConfigError(f"{path}: it has no listener; run `fedmq provision` again")
    try:
        port, address = int(values[0]), ipaddress.ip_address(values[1] if len(values) > 1 else "0.0.0.0")  # noqa: S104
        if not 1 <= port <= 65535:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise ConfigError(
            f"{path}: {line!r}: expected `listener`, a port and the IP address of this machine to listen on; run `fedmq"
            " provision` again"
        ) from error
    return port, str(address)


def _provisioned(login: Login) -> bytes:
    return configuration(Record(federation="any", login=login))


def _faults(found: list[str], wanted: list[str]) -> list[str]:
    """How the lines differ that guard the broker."""
    found, wanted = list(_guards(found)), list(_guards(wanted))
    missing = [f"`{line}` is missing" for line in wanted if line not in found]
    added = [f"`{line}` was added" for line in found if line not in wanted]
    # Some count for the listener above them only, and of one that stands there twice the last counts.
    return missing + added or ([] if found == wanted else ["its lines are in another order"])


def _guards(lines: list[str]) -> Iterator[str]:
    listeners = 0
    for line in lines:
        name = line.split()[0]
        if name == "listener":
            listeners += 1
            yield "listener" if listeners == 1 else line
        elif name not in _FREE:
            yield line
