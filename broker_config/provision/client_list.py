"""The file that names a federation's devices: an id in each line, with comments after #."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fedmq.broker_config.provision.folder import AGGREGATOR, OPERATOR
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.topics import check_id

__all__ = ["check_device", "check_devices", "read_clients"]


def check_device(client_id: str, where: str) -> str:
    """The id itself, if a device may have it.

    Raises:
        ConfigError: it cannot stand in a topic, or is the name of an account that is no device.

    """
    try:
        check_id(client_id, "client id")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if client_id in (AGGREGATOR, OPERATOR):
        raise ConfigError(f"{where}: client id {client_id!r} is the {client_id}'s own account; choose another")
    return client_id


def check_devices(client_ids: Iterable[str], where: str) -> tuple[str, ...]:
    """The ids themselves, if devices may have them and none comes twice; raises ConfigError otherwise."""
    seen: dict[str, None] = {}
    for client_id in client_ids:
        if check_device(client_id, where) in seen:
            raise ConfigError(f"{where}: client id {client_id!r} is there twice; each device has one of its own")
        seen[client_id] = None
    return tuple(seen)


def read_clients(path: Path) -> tuple[str, ...]:
    """The ids that the file names, in its order.

    Raises:
        ConfigError: it cannot be read, names nobody, or has an id that is none or is there twice; with the line.

    """
    try:
        # Some editors put a mark of three bytes before the text, which belongs to no id.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}; write one client id in each line") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: it is not UTF-8 text; write one client id in each line") from error
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        client_id = line.partition("#")[0].strip()
        if client_id:
            check_device(client_id, f"{path}:{number}")
            if client_id in found:
                raise ConfigError(
                    f"{path}:{number}: client id {client_id!r} is there already, in line {found[client_id]};"
                    " each device has one of its own"
                )
            found[client_id] = number
    if not found:
        raise ConfigError(f"{path}: it names no client; write one client id in each line")
    return tuple(found)
