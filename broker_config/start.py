"""A broker of one's own, on this machine only, for as long as it is needed."""

from __future__ import annotations

import ipaddress
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from fedmq.broker_config.child import start_child
from fedmq.broker_config.embedded import embedded_command, has_embedded
from fedmq.broker_config.mosquitto import find_mosquitto, mosquitto_command
from fedmq.schemas.errors import ConfigError, TransportError

__all__ = [
    "RunningBroker",
    "answering",
    "check_free",
    "is_loopback",
    "openness",
    "reached_at",
    "start_broker",
]

_START_SECONDS = 15.0
_STOP_SECONDS = 5.0
# Between choosing a free port and listening on it another process can take it.
_ATTEMPTS = 3
_LOG_LINES = 8


class RunningBroker:
    """A broker process that belongs to this one. A context manager; on Linux it dies with the thread that started it.

    Attributes:
        engine: which broker it is.
        ports: the TCP port for each version of MQTT; one and the same for Mosquitto.
        log: the file that it writes its messages to.
        host: the address that it is reached at from this machine.
        scheme: mqtt, or mqtts where it speaks TLS only.

    """

    def __init__(
        self,
        engine: Literal["mosquitto", "embedded"],
        process: subprocess.Popen[bytes],
        ports: dict[str, int],
        log: Path,
        host: str = "127.0.0.1",
        scheme: Literal["mqtt", "mqtts"] = "mqtt",
    ) -> None:
        self.engine = engine
        self.ports = ports
        self.log = log
        self.host = host
        self.scheme = scheme
        self._process = process

    @property
    def url(self) -> str:
        """Where clients find it."""
        return self.urls["5"]

    @property
    def urls(self) -> dict[str, str]:
        """The url for each version of MQTT, "5" and "3.1.1"."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return {version: f"{self.scheme}://{host}:{port}" for version, port in self.ports.items()}

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it: ask, and after five seconds kill. Nothing if it is gone already."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def read_files_again(self) -> None:
        """Tell it that rules, passwords or certificates have changed. Mosquitto only."""
        self._process.send_signal(signal.SIGHUP)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


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
                return _start(chosen, folder, listen, port or _free_port(), max_message_bytes, persistent)
            except TransportError:
                if not attempts_left:
                    raise
        raise AssertionError("the last attempt returns or raises")
    except OSError as error:
        raise ConfigError(f"a broker cannot be started in {folder}: {error}") from error


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


def reached_at(listen: str) -> str:
    """The address at which this machine reaches what listens there."""
    address = ipaddress.ip_address(listen)
    return ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else listen


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
        ports["3.1.1"] = _free_port()
        command = embedded_command(folder, listen, port, ports["3.1.1"], max_message_bytes)
    log = folder / "broker.log"
    return answering(RunningBroker(engine, start_child(command, log), ports, log, host))


def check_free(host: str, port: int) -> None:
    """Raise TransportError if somebody listens there: he would be taken for the broker."""
    if _answers(host, port):
        raise TransportError(f"port {port} of this machine is in use; choose another, or stop what listens there")


def answering(broker: RunningBroker) -> RunningBroker:
    """The broker, when it answers; raises TransportError, and ends it, if it does not."""
    try:
        _wait(broker)
    except BaseException:
        broker.kill()
        raise
    return broker


def _wait(broker: RunningBroker) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not all(_answers(broker.host, port) for port in set(broker.ports.values())):
        if not broker.running:
            raise TransportError(f"the {broker.engine} broker ended while starting; its log {_tail(broker.log)}")
        if time.monotonic() >= deadline:
            raise TransportError(
                f"the {broker.engine} broker does not answer on {broker.url} after {_START_SECONDS:g} s; "
                f"its log {_tail(broker.log)}"
            )
        time.sleep(0.02)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return f"{log} ends with:\n" + "\n".join(f"  {line}" for line in lines)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
