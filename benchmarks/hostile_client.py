"""A device that does everything that it should not, with valid credentials, beside a federation at work.

    python benchmarks/hostile_client.py --json                 # three seeds, about eight minutes
    python benchmarks/hostile_client.py --seeds 1 --seconds 20

Everything is as it is installed: `fedmq provision`, `fedmq broker --secure` with Mosquitto, `fedmq aggregator`, honest
devices as processes, each with its bundle, TLS, its password and signatures. They learn digits, each with a pace of its
own: with equal ones they march in step, and one update of anybody else ends that. The hostile one sends what
`hostile_sender.py` makes, as fast as the broker takes it: nothing (`none`), what never leads to quarantine
(`innocent`), or everything (`all`), in turn for each seed. Said are accuracy at the end, seconds from the start of the
devices to version 1 and to a goal, peak memory, size of folder and log, and what was counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from hostile_task import accuracy
from safetensors.numpy import save_file

from fedmq.aggregator.export import read_figures, read_run
from fedmq.broker_config.child import start_child
from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.schemas.errors import StoreError

HERE = Path(__file__).parent
HONEST = 5
GOAL, SMOOTHED = 0.86, 4  # over so many looks, a quarter of a second apart
MALLORY = "mallory"
FEDERATION = "hostile"
CONDITIONS = ("none", "innocent", "all")
_ENV = shutil.which("env") or "/usr/bin/env"

# What docs/robustness.md says where one cannot vouch for every device; the rest is as installed.
AGGREGATOR = {
    "buffer_size": HONEST,
    "one_per_client": "true",
    "max_norm": 10,
    "max_medians": 5,
    "client_updates_per_minute": 240,
    "task_versions": '["digits"]',
    "publish_interval": 0.2,
    "server_learning_rate": 1.0,
}
PLAN = {"learning_rate": 0.2, "retrain_after": 0.5, "batch_size": 64}


@dataclass
class Found:
    """What one run came to."""

    condition: str
    seed: int
    accuracy: float = 0.0
    seconds_to_version_1: float = 0.0
    seconds_to_goal: float | None = None
    versions: int = 0
    accepted: int = 0
    peak_mb: float = 0.0
    folder_kb: float = 0.0
    log_kb: float = 0.0
    broker_mb: float = 0.0
    sent: int = 0
    aggregator_cpu: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)
    later: dict[str, int] = field(default_factory=dict)
    quarantine: list[str] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)


class World:
    """The processes of one run; a context manager that ends them."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        self.folder, self.root = folder, folder / "secure"
        self.programs: list[subprocess.Popen[Any]] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        clients = (*(f"dev-{number}" for number in range(HONEST)), MALLORY)
        changes = {"port": port, "listen": "127.0.0.1", "task": str(HERE / "hostile_task.py")}
        provision(self.root, Request(FEDERATION, clients=clients, changes=changes), datetime.now(UTC))
        rng = np.random.default_rng(0)
        weights = {"b": np.zeros(10, np.float32), "w": rng.normal(0, 0.01, (64, 10)).astype(np.float32)}
        save_file(weights, folder / "weights.safetensors")
        self.settings = [*settings, f"aggregator.init={folder}/weights.safetensors"]
        self.broker = self.start("broker", "broker", "--secure", str(self.root))
        _until(lambda: "with the rules in" in self.log("broker"))

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self.programs):
            program.terminate()
        for program in self.programs:
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        values = {"OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(self.folder / "state")} | environment
        command = [_ENV, *(f"{key}={value}" for key, value in values.items()), sys.executable, "-m", "fedmq"]
        self.programs.append(start_child([*command, *arguments], self.folder / f"{name}.log"))
        return self.programs[-1]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def aggregator(self) -> subprocess.Popen[bytes]:
        overrides = [f"--set={setting}" for setting in self.settings]
        return self.start("aggregator", "aggregator", "--config", f"{self.root}/aggregator/federation.toml", *overrides)

    def device(self, number: int) -> None:
        name = f"dev-{number}"
        config = ["--config", f"{self.root}/devices/{name}/federation.toml", "--client-id", name]
        pace = f"--set=device.pace={0.4 + 0.05 * number:.2f}"
        self.start(name, "client", *config, pace, DEVICE=str(number), DEVICES=str(HONEST))

    def mallory(self, kinds: str, seconds: float) -> subprocess.Popen[str]:
        sender = [sys.executable, str(HERE / "hostile_sender.py"), f"{self.root}/devices/{MALLORY}", MALLORY]
        process = subprocess.Popen([*sender, kinds, str(seconds)], stdout=subprocess.PIPE, text=True)
        self.programs.append(process)
        return process

    @property
    def run(self) -> Path:
        return self.root / "aggregator" / "runs" / FEDERATION


def measure(condition: str, seed: int, seconds: float, settings: list[str]) -> Found:
    found = Found(condition, seed)
    with tempfile.TemporaryDirectory(prefix="fedmq-hostile-") as folder, World(Path(folder), settings) as world:
        aggregator = world.aggregator()
        _until(lambda: (world.run / "run.sqlite").exists() and "connected run=" in world.log("aggregator"))
        mallory = None
        if condition != "none":  # it floods before anybody else is there
            mallory = world.mallory(condition, seconds + 30)
            assert mallory.stdout is not None
            mallory.stdout.readline()
        started = time.monotonic()
        for number in range(HONEST):
            world.device(number)
        _until(lambda: _version(world.run) > 0, 90)
        begun = time.monotonic()
        found.seconds_to_version_1 = round(begun - started, 2)
        while (now := time.monotonic() - begun) < seconds:
            time.sleep(0.25)
            try:
                got = accuracy(read_run(world.run).arrays())
            except StoreError:
                continue
            found.curve.append((round(now, 2), round(got, 4)))
            last = [got for _, got in found.curve[-SMOOTHED:]]
            if found.seconds_to_goal is None and len(last) == SMOOTHED and statistics.mean(last) >= GOAL:
                found.seconds_to_goal = round(now + found.seconds_to_version_1, 2)
        found.accuracy = round(statistics.mean(got for at, got in found.curve if at > 0.75 * seconds), 4)
        found.peak_mb, found.aggregator_cpu = _peak_mb(aggregator.pid), round(_cpu(aggregator.pid), 1)
        found.broker_mb = max(_peak_mb(int(pid)) for pid in _children(world.broker.pid))
        found.folder_kb = round(sum(p.stat().st_size for p in world.run.rglob("*") if p.is_file()) / 1024, 1)
        found.log_kb = round((world.folder / "aggregator.log").stat().st_size / 1024, 1)
        if mallory is not None:
            found.sent = _stopped(mallory)
        aggregator.terminate()  # with a last commit, so that everything counted is on the disk
        aggregator.wait(20)
        figures = read_figures(world.run)
        found.versions, found.accepted = figures["version"], figures["accepted"]
        found.rejected, found.later = figures["rejected"], figures["later"]
        found.quarantine = [f"{client}: {held[0]}" for client, held in figures["quarantine"]["held"].items()]
    return found


def _stopped(mallory: subprocess.Popen[str]) -> int:
    """How many messages it has sent."""
    mallory.terminate()
    said, _ = mallory.communicate(timeout=20)
    return int(json.loads(said)["sent"]) if said.strip() else 0


def _version(run: Path) -> int:
    try:
        return int(read_figures(run).get("version", 0))
    except StoreError:
        return 0


def _until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:g} s in vain")
        time.sleep(0.05)


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split() or [str(pid)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run, from version 1 on")
    parser.add_argument("--only", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--set", action="append", default=[], help="more settings of the aggregator")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    settings = [f"aggregator.{key}={value}" for key, value in AGGREGATOR.items()]
    settings += [f"plan.{key}={value}" for key, value in PLAN.items()] + options.set
    runs = []
    for seed in range(options.seeds):
        for condition in options.only:
            found = measure(condition, seed, options.seconds, settings)
            runs.append(found)
            said = {key: value for key, value in asdict(found).items() if key != "curve"}
            print(json.dumps(said), file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"seconds": options.seconds, "goal": GOAL, "runs": [asdict(found) for found in runs]}))


if __name__ == "__main__":
    main()
