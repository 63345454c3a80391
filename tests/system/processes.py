"""A federation of real processes for a test: `python -m fedmq …` over a real broker, started, watched and ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from safetensors.numpy import save_file

from fedmq.aggregator.export import Run, read_run
from fedmq.broker_config.child import start_child
from fedmq.schemas.messages import ClientStatus
from fedmq.settings import load_settings
from fedmq.watch import Watch

__all__ = ["PATIENCE", "TASK", "Federation", "Program", "until"]

PATIENCE = 40.0
"""Seconds until a test gives up; on a free machine nothing takes a tenth of it."""

TASK = """
from fedmq import Trained

task_version = "1"

def train_numpy(weights, plan):
    return Trained({name: array + plan.learning_rate for name, array in weights.items()}, num_samples=10)
"""
"""Adds the learning rate to every weight: a model that counts its updates."""

_ENV = shutil.which("env") or "/usr/bin/env"


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)


class Program:
    """One process, and what it wrote."""

    def __init__(self, name: str, arguments: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._log = log
        values = [f"{key}={value}" for key, value in environment.items()]
        self._process = start_child([_ENV, *values, sys.executable, *arguments], log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str, times: int = 1) -> None:
        """Wait until it has written this."""
        until(lambda: self.log.count(text) >= times, f"{self.name} to say {text!r}; it said:\n{self.log}")

    def ends(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; its exit code."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} had not ended after {seconds:g} s; it said:\n{self.log}") from None

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()


class Federation:
    """One federation's folder, processes, and an eye on its topics; a context manager that ends all of them.

    Settings are by dotted key. Weights are four zeros called `w` unless other settings say so.
    """

    def __init__(self, folder: Path, name: str, broker_url: str, **changes: Any) -> None:
        self.folder = folder
        self.name = name
        self.run_folder = folder / "run"
        self.programs: list[Program] = []
        self.environment = {"OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(folder / "state")}
        self.settings: dict[str, Any] = {
            "federation": name,
            "task": "task.py",
            "broker.url": broker_url,
            "broker.reconnect_max_seconds": 1.0,
            "plan.learning_rate": 1.0,
            "plan.retrain_after": 0.5,
            "plan.codec": "float32",  # so that every count is exact
            "plan.zstd": False,
            "aggregator.snapshot_codec": "float32",
            "aggregator.folder": "run",
            "aggregator.init": "weights.safetensors",
            "aggregator.publish_interval": 0.1,
            "aggregator.buffer_size": 1,
            "device.pace": 0.1,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "task.py").write_text(TASK)
        save_file({"w": np.zeros(4, np.float32)}, folder / "weights.safetensors")
        self.set(**changes)

    @property
    def file(self) -> Path:
        return self.folder / "federation.toml"

    def set(self, **changes: Any) -> None:
        """Write federation.toml anew, with changes; `plan__learning_rate=2` for `plan.learning_rate`, None removes."""
        self.settings |= {key.replace("__", "."): value for key, value in changes.items()}
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in self.settings.items() if value is not None)
        self.file.write_text("".join(lines))

    def __enter__(self) -> Self:
        self.watch = Watch(load_settings(self.file, environment={}), f"{self.name}-eye")
        self.watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for program in self.programs:
            program.kill()
        self.watch.__exit__(kind, error, traceback)

    def task(self, name: str, text: str) -> str:
        """Write a task file; the option that has a client take it."""
        (self.folder / name).write_text(text)
        return f"--set=task={self.folder / name}"

    def start(self, name: str, *arguments: str) -> Program:
        """Start a command; its options have to name the settings."""
        log = self.folder / f"{name}-{len(self.programs)}.log"
        program = Program(name, ["-m", "fedmq", *arguments], log, self.environment)
        self.programs.append(program)
        return program

    def aggregator(self, *options: str) -> Program:
        return self.start("aggregator", "aggregator", "--config", str(self.file), *options)

    def client(self, client_id: str, *options: str) -> Program:
        return self.start(client_id, "client", "--config", str(self.file), "--client-id", client_id, *options)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "fedmq", *arguments, "--config", str(self.file)],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait for something that the topics tell."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.watch.poll(0.05)
            ends = "".join(f"\n--- {program.name}\n{program.log[-1500:]}" for program in self.programs)
            assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}; seen: {self.watch.describe()}{ends}"

    def goes_on(self, versions: int = 3, seconds: float = PATIENCE) -> None:
        """Wait for so many versions more than there are now."""
        self.refresh()
        goal = self.version + versions
        self.until(lambda: self.version >= goal, f"version {goal}", seconds)

    def refresh(self) -> None:
        """Take what the broker has sent so far."""
        quiet = 0
        while quiet < 5:  # what it cannot read is no news either
            quiet = 0 if self.watch.poll(0.01) else quiet + 1

    @property
    def version(self) -> int:
        """The newest committed version that the topics tell of; -1 before the first."""
        return self.watch.progress.version if self.watch.progress else -1

    def status(self, client_id: str) -> ClientStatus:
        """The last that was heard of a client; of one that never spoke, an offline one without an incarnation."""
        silent = ClientStatus(state="offline", client_id=client_id, incarnation="0" * 32, activity="connecting")
        return self.watch.clients.get(client_id, silent)

    def accepted(self, client_id: str) -> int:
        """Receipts that this process of the client has read."""
        return self.status(client_id).accepted

    def work(self, *client_ids: str, updates: int = 1) -> None:
        """Wait until each of these clients has had so many more updates accepted."""
        self.refresh()
        goals = {client_id: self.accepted(client_id) + updates for client_id in client_ids}
        self.until(
            lambda: all(self.accepted(client_id) >= goal for client_id, goal in goals.items()),
            f"accepted updates: {goals}",
        )

    def read_run(self) -> Run:
        """The run as it is on the disk."""
        return read_run(self.run_folder)
