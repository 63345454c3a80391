"""A broker that runs as a child of this process, and whether it answers."""

from __future__ import annotations

import ipaddress
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from fedmq.schemas.errors import TransportError

__all__ = ["RunningBroker", "answering", "check_free", "free_port", "reached_at"]

_START_SECONDS = 15.0
_STOP_SECONDS = 5.0
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

    @property
    def end(self) -> str:
        """How the process ended, for people, to stand after its name; only once it has."""
        code = self._process.poll()
        assert code is not None
        return f"ended with code {code}" if code >= 0 else f"was ended by signal {-code} ({signal.strsignal(-code)})"

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


def reached_at(listen: str) -> str:
    """The address at which this machine reaches what listens there."""
    address = ipaddress.ip_address(listen)
    return ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else listen


def check_free(host: str, port: int, choose: str = "choose another") -> None:
    """Raise TransportError if somebody listens there: he would be taken for the broker. `choose` is what to do."""
    if _answers(host, port):
        raise TransportError(f"port {port} of this machine is in use; stop what listens there, or {choose}")


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
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    except OSError as error:  # somebody has moved it away
        return f"{log} cannot be read: {error.strerror}"
    return f"{log} ends with:\n" + "\n".join(f"  {line}" for line in lines)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
