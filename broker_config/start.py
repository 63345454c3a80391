"""A broker of one's own, on this machine only, for as long as it is needed."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from fedmq.broker_config.child import start_child
from fedmq.broker_config.embedded import embedded_command, has_embedded
from fedmq.broker_config.mosquitto import find_mosquitto, mosquitto_command
from fedmq.broker_config.running import RunningBroker, answering, check_free, free_port, reached_at
from fedmq.schemas.errors import ConfigError, TransportError
from fedmq.schemas.refusals import refused

__all__ = ["RunningBroker", "is_loopback", "openness", "start_broker"]

# Between choosing a free port and listening on it another process can take it.
_ATTEMPTS = 3


def start_broker(
    engine: Literal["auto", "mosquitto", "embedded"] = "auto",
    *,
    folder: Path,
    port: int = 0,
    max_message_bytes: int = 16 << 20,
    persistent: bool = False,
    listen: str = "127.0.0.1",
    insecure: bool = False,
) -> RunningBroker:
    """Start a broker that lets everyone in, on 127.0.0.1 only unless told otherwise; returns when it answers.

    Args:
        engine: "auto" is Mosquitto where it is installed, else the embedded one.
        folder: for its configuration, its log and what it keeps; made if it is not there.
        port: of MQTT 5 (the embedded broker has a second one for 3.1.1); 0 chooses a free one.
        max_message_bytes: the largest payload that it takes.
        persistent: keep sessions and retained messages in `folder` over a restart. Mosquitto only.
        listen: the address that it listens on. Others than loopback are for whoever has said `insecure`.
        insecure: it may be reached from other machines, by anyone, for anything.

    Raises:
        ConfigError: there is no such broker on this machine, the folder cannot be used, or the address is none, or not
            a loopback address without `insecure`.
        StoreError: there is no room in the folder.
        TransportError: it did not start; the message ends with what it said last.

    """
    chosen = _choose(engine)
    if not is_loopback(listen) and not insecure:
        raise ConfigError(f"{openness(chosen, listen)}; run a provisioned one with --secure, or say --insecure")
    if persistent and chosen == "embedded":
        raise ConfigError("the embedded broker keeps nothing over a restart; persistence needs Mosquitto")
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for attempts_left in reversed(range(1 if port else _ATTEMPTS)):
            try:
                return _start(chosen, folder, listen, port or free_port(), max_message_bytes, persistent)
            except TransportError:
                if not attempts_left:
                    raise
        raise AssertionError("the last attempt returns or raises")
    except OSError as error:
        raise refused(f"a broker cannot be started in {folder}", error, "choose another folder") from error


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches what listens there; raises ConfigError for what is no IP address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError as error:
        raise ConfigError(f"{address!r}: expected an IP address of this machine, such as 127.0.0.1") from error


def openness(engine: Literal["mosquitto", "embedded"], listen: str) -> str:
    """What it means to have this broker listen there."""
    why = "has no rules for topics" if engine == "embedded" else "is started without rules for topics"
    return f"the {engine} broker {why}, and on {listen} whoever reaches it may read and write everything"


def _choose(engine: Literal["auto", "mosquitto", "embedded"]) -> Literal["mosquitto", "embedded"]:
    if engine != "auto":
        return engine
    if find_mosquitto() is not None:
        return "mosquitto"
    if has_embedded():
        return "embedded"
    raise ConfigError(
        'there is no MQTT broker on this machine: "apt install mosquitto" (or brew) gets Mosquitto, '
        '"pip install fedmq[embedded]" a small one for trials'
    )


def _start(
    engine: Literal["mosquitto", "embedded"],
    folder: Path,
    listen: str,
    port: int,
    max_message_bytes: int,
    persistent: bool,
) -> RunningBroker:
    host = reached_at(listen)
    check_free(host, port)
    ports = {"5": port, "3.1.1": port}
    if engine == "mosquitto":
        command = mosquitto_command(folder, listen, port, max_message_bytes, persistent=persistent)
    else:
        ports["3.1.1"] = free_port()
        command = embedded_command(folder, listen, port, ports["3.1.1"], max_message_bytes)
    log = folder / "broker.log"
    return answering(RunningBroker(engine, start_child(command, log), ports, log, host))
