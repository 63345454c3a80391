"""A whole federation on this machine: broker, aggregator and each client as processes of their own, started and ended.

What runs is what runs in the field: the same commands over a real broker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from fedmq.broker_config.child import start_child
from fedmq.broker_config.start import start_broker
from fedmq.schemas.errors import ConfigError, FedMQError
from fedmq.schemas.refusals import refused
from fedmq.settings import Settings, load_settings
from fedmq.status_text import failed
from fedmq.watch import Watch

__all__ = ["Sample", "Testbed", "TestbedError"]

_READY_SECONDS = 90.0  # until every client has imported torch and loaded its data, on a small machine
_STOP_SECONDS = 5.0
_LAST_WORD_SECONDS = 2.0  # until what a client says last has come; it is sent before it ends
_LOG_LINES = 6


class TestbedError(FedMQError):
    """A process of the testbed ended that should not have; the message has the end of its log."""

    __test__ = False  # no test case, whatever its name looks like to pytest


@dataclass(frozen=True, slots=True)
class Sample:
    """How far the run was at a moment.

    Attributes:
        seconds: since the first weights were published.
        version: committed then.
        metrics: what devices measured, mean weighted by samples.

    """

    seconds: float
    version: int
    metrics: dict[str, float]


@dataclass
class Testbed:
    """A federation on this machine; a context manager that ends every process that it started.

    Entering it raises ConfigError if there is a run in the folder, and StoreError if the folder cannot be written.

    Attributes:
        folder: for everything: configuration, logs, the run, the devices' outboxes.
        settings: of federation.toml, by section.
        clients: ids, and how many seconds a job of each lasts at least.
        broker_url: of a broker that is there; None starts a private one.
        engine: which private one.
        samples: how the run went so far.
        started: when the first weights went out, on the monotonic clock.

    """

    __test__ = False

    folder: Path
    settings: Mapping[str, Any]
    clients: Mapping[str, float]
    broker_url: str | None = None
    engine: Literal["auto", "mosquitto", "embedded"] = "auto"
    samples: list[Sample] = field(default_factory=list)
    started: float = 0.0
    broker_name: str = ""

    def __enter__(self) -> Self:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()
        try:
            self._prepare_folder()
            self._start_broker()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._end_processes()
            if self.broker_url is not None:
                self.watch.clear()
        finally:
            self._stack.close()

    def start(self, waiting: Callable[[Watch], None]) -> None:
        """Start clients, and the aggregator when all of them are ready, so that time counts for all from one moment.

        Args:
            waiting: called now and then, for a view.

        Raises:
            TestbedError: one did not come up.

        """
        for client_id, pace in self.clients.items():
            self._spawn(client_id, "client", "--client-id", client_id, "--set", f"device.pace={pace}")
        deadline = time.monotonic() + _READY_SECONDS
        while len([s for s in self.watch.clients.values() if s.state == "online"]) < len(self.clients):
            self.check()
            if any(process.poll() is not None for process in self._processes.values()):
                raise TestbedError(f"a client ended before there was anything to do; logs: {self.folder}/logs")
            if time.monotonic() > deadline:
                raise TestbedError(f"not all clients were ready after {_READY_SECONDS:g} s; logs: {self.folder}/logs")
            self.watch.poll(0.1)
            waiting(self.watch)
        self._spawn("aggregator", "aggregator", "--replace")
        while self.watch.progress is None:
            self.check()
            if not self.running:
                raise TestbedError(f"the aggregator ended at once; its log ends with:\n{self._tail('aggregator')}")
            self.watch.poll(0.05)
            waiting(self.watch)
        self.started = time.monotonic()

    @property
    def running(self) -> bool:
        """Whether the aggregator is at work."""
        return self._processes["aggregator"].poll() is None

    @property
    def seconds(self) -> float:
        """Since the first weights were published."""
        return time.monotonic() - self.started if self.started else 0.0

    def follow(self, timeout: float = 0.1) -> None:
        """Take what news there is for `timeout` seconds, and sample it.

        Raises:
            TestbedError: a process has failed.

        """
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            self.watch.poll(left)
        progress = self.watch.progress
        if progress is not None and progress.devices is not None:
            metrics = dict(progress.devices.mean)
            if not self.samples or self.samples[-1].version != progress.version:
                self.samples.append(Sample(self.seconds, progress.version, metrics))
        self.check()

    def check(self) -> None:
        """Raise TestbedError if a process has failed."""
        for name, process in self._processes.items():
            if process.poll() not in (None, 0):
                raise TestbedError(
                    f"{name} ended with exit code {process.returncode}; its log ends with:\n{self._tail(name)}"
                )

    def stop_aggregator(self) -> None:
        """Ask the aggregator to commit and end, and wait for it."""
        process = self._processes.get("aggregator")
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def stop_clients(self) -> None:
        """Ask the clients to end, and hear what each says last: until then their counts are of a moment before."""
        self._end_processes()
        until = time.monotonic() + _LAST_WORD_SECONDS
        while any(s.state != "offline" for s in self.watch.clients.values()) and time.monotonic() < until:
            self.watch.poll(0.05)

    def failing(self, accepted: int) -> list[str]:
        """Lines about the clients whose last training failed, and one more if no update was accepted beside that."""
        failing = self.watch.failing
        lines = [failed(client_id, why) for client_id, why in sorted(failing.items())]
        if lines and not accepted:
            lines.append(
                f"nothing was trained: no update was accepted, and {len(failing)} of {len(self.clients)} clients"
                f" failed; logs: {self.folder}/logs"
            )
        return lines

    @property
    def run_folder(self) -> Path:
        """Where the aggregator keeps its run."""
        return self.folder / "run"

    def _prepare_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder / "run").exists():  # else it would go on, and its end and figures be taken for this one's
                raise ConfigError(f"a run is in {self.folder} already; name a new folder with --out")
            (self.folder / "logs").mkdir(exist_ok=True)
        except OSError as error:
            raise refused(str(self.folder), error, "name another folder with --out") from error

    def _start_broker(self) -> None:
        url = self.broker_url
        self.broker_name = url or ""
        if url is None:
            broker = self._stack.enter_context(start_broker(self.engine, folder=self.folder / "broker"))
            url = broker.url
            self.broker_name = f"{broker.engine} at {broker.url}"
        sections = {name: dict(value) if isinstance(value, Mapping) else value for name, value in self.settings.items()}
        sections["broker"] = dict(sections.get("broker", {})) | {"url": url}
        if self.broker_url is not None:
            # What an earlier testbed left on that broker, retained, is another federation's.
            sections["federation"] = f"{sections['federation']}-{os.urandom(4).hex()}"
        sections["aggregator"] = dict(sections.get("aggregator", {})) | {"folder": "run"}
        sections["device"] = {"folder": "devices", "threads": 1} | dict(sections.get("device", {}))
        path = self.folder / "federation.toml"
        try:
            path.write_text(_toml(sections), encoding="utf-8")
        except OSError as error:
            raise refused(str(path), error, "name another folder with --out") from error
        self.loaded: Settings = load_settings(path, environment={})
        self.watch = self._stack.enter_context(
            Watch(self.loaded, f"{self.loaded.federation}-view-{os.urandom(4).hex()}")
        )
        self.watch.ask(*self.clients)

    def _spawn(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "fedmq", *arguments, "--config", str(self.folder / "federation.toml")]
        self._processes[name] = start_child(command, self.folder / "logs" / f"{name}.log")

    def _end_processes(self) -> None:
        alive = [process for process in self._processes.values() if process.poll() is None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _tail(self, name: str) -> str:
        lines = (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])


def _toml(sections: Mapping[str, Any]) -> str:
    """Sections of plain values as TOML; a JSON text, number, boolean or list of these is one."""
    plain = {key: value for key, value in sections.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {_literal(value)}" for key, value in plain.items()]
    for name, section in sections.items():
        if isinstance(section, Mapping) and section:
            lines += _table(name, section)
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    # Characters as they are: JSON's way to write those beyond U+FFFF is none of TOML's.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _table(name: str, section: Mapping[str, Any]) -> list[str]:
    lines = ["", f"[{name}]"]
    lines += [f"{key} = {_literal(value)}" for key, value in section.items() if not isinstance(value, Mapping)]
    for key, value in section.items():
        if isinstance(value, Mapping):
            lines += _table(f"{name}.{key}", value)
    return lines
