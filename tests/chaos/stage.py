"""Where the chaos happens: one federation's folder, and how its broker, its aggregator and its clients are started."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fedmq.aggregator.export import Run, read_run
from fedmq.broker_config.start import RunningBroker, start_broker
from fedmq.schemas.errors import StoreError
from fedmq.settings import Settings, load_settings
from tests.chaos import one_hot_task
from tests.system.processes import Program

__all__ = ["STRATEGIES", "Crash", "Life", "Stage"]

STRATEGIES: Mapping[str, Mapping[str, object]] = {
    "fedasync_delta": {"strategy": "fedasync_delta", "alpha": 1.0, "staleness": "constant"},
    "fedbuff_paper": {
        "strategy": "fedbuff",
        "normalisation": "paper",
        "staleness": "constant",
        "buffer_size": 4,
        "server_learning_rate": 4.0,
    },
    "fedbuff": {"strategy": "fedbuff", "buffer_size": 4},
}
"""By name, their settings. With the first two each update counts exactly 1 in the weights; the last is the default."""

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Crash:
    """A process kills itself at the `passing`-th passing of a fail-point."""

    point: str
    passing: int


@dataclass(frozen=True, slots=True)
class Life:
    """One process from its start to its death.

    Attributes:
        program: the process.
        crash_log: where it names the fail-point that it died at.

    """

    program: Program
    crash_log: Path

    def died_at(self) -> str | None:
        """The fail-point that killed it; None if none did."""
        return self.crash_log.read_text().strip() or None if self.crash_log.exists() else None


class Stage:
    """One federation of real processes.

    Args:
        folder: for everything that they write; made.
        strategy: a key of `STRATEGIES`.
        clients: how many.
        program: the module that the processes run, and its first arguments.

    """

    def __init__(self, folder: Path, strategy: str, clients: int, program: Sequence[str] = ("fedmq",)) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.strategy = strategy
        self.client_ids = tuple(f"client-{number}" for number in range(clients))
        self.run_folder = folder / "run"
        self._devices = folder / "devices"
        self._devices.mkdir()
        self._module = ["-m", *program]
        self._port = _free_port()
        self._lives = 0
        self._crash_log = folder / "no-crash.log"
        shutil.copy(one_hot_task.__file__, folder / "task.py")
        save_file({"counts": np.zeros(clients * one_hot_task.PLACES, np.float32)}, folder / "weights.safetensors")
        self._file = folder / "federation.toml"
        self._file.write_text(self._toml())

    @property
    def settings(self) -> Settings:
        """What every process reads."""
        return load_settings(self._file, environment={})

    def broker(self, *, persistent: bool) -> RunningBroker:
        """Start the broker, on the same port every time."""
        return start_broker("mosquitto", folder=self.folder / "broker", port=self._port, persistent=persistent)

    def aggregator(self, crash: Crash | None = None) -> Life:
        """Start the aggregator."""
        return self._start("aggregator", crash, {}, "aggregator")

    def client(self, client_id: str, crash: Crash | None = None) -> Life:
        """Start a client."""
        number = str(self.client_ids.index(client_id))
        environment = {"CHAOS_CLIENT": number, "CHAOS_DEVICE": str(self._devices / client_id)}
        return self._start(client_id, crash, environment, "client", "--client-id", client_id)

    def stop_training(self) -> None:
        """From now on devices only deliver what they have."""
        (self._devices / one_hot_task.STOP).touch()

    def trained(self, client_id: str) -> int:
        """How often this client has trained, whatever became of it."""
        file = self._devices / client_id / one_hot_task.TRAINED
        return len(file.read_text().splitlines()) if file.exists() else 0

    def stored(self, client_id: str) -> int:
        """How many updates have been in this client's outbox: those of all smaller sequence numbers."""
        return self._outbox(client_id, "SELECT value FROM meta WHERE key = 'next'")

    def waiting(self, client_id: str) -> int:
        """How many updates are in this client's outbox."""
        return self._outbox(client_id, "SELECT count(*) FROM entry")

    def run(self) -> Run | None:
        """The run as of its last commit; None before the first."""
        try:
            return read_run(self.run_folder)
        except StoreError:
            return None

    def half_full(self) -> bool:
        """Whether the buffer holds some updates as of the last commit; that it is full it never says."""
        run = self.run()
        return run is not None and bool(run.figures["buffer"]["updates"])

    def settled(self) -> bool:
        """Whether no device trains any more, and every outbox and the buffer are empty."""
        rest = all((self._devices / client_id / one_hot_task.RESTS).exists() for client_id in self.client_ids)
        return rest and not any(map(self.waiting, self.client_ids)) and not self.half_full()

    def _start(self, name: str, crash: Crash | None, environment: Mapping[str, str], *arguments: str) -> Life:
        self._lives += 1
        crash_log = self.folder / f"{name}-{self._lives}.crash"
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT), **environment}
        if crash is not None:
            environment |= {"FEDMQ_CRASH_AT": f"{crash.point}:{crash.passing}", "FEDMQ_CRASH_LOG": str(crash_log)}
        command = [*self._module, *arguments, "--config", str(self._file)]
        log = self.folder / f"{name}-{self._lives}.log"
        return Life(Program(name, command, log, environment), crash_log)

    def _outbox(self, client_id: str, query: str) -> int:
        path = self._devices / client_id / "outbox.sqlite"
        if not path.exists():
            return 0
        outbox = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            row = outbox.execute(query).fetchone()
        finally:
            outbox.close()
        return int(row[0]) if row else 0

    def _toml(self) -> str:
        settings: dict[str, object] = {
            "federation": "chaos",
            "task": "task.py",
            "broker.url": f"mqtt://127.0.0.1:{self._port}",
            "broker.reconnect_max_seconds": 0.3,
            "plan.retrain_after": 0.3,
            "plan.codec": "float32",
            "aggregator.snapshot_codec": "float32",
            "aggregator.folder": "run",
            "aggregator.init": "weights.safetensors",
            "aggregator.publish_interval": 0.05,
            "device.folder": "devices",
        }
        settings |= {f"aggregator.{key}": value for key, value in STRATEGIES[self.strategy].items()}
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
