"""A provisioned, signed federation of real processes, whose broker is hostile; its weights count its updates."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from safetensors.numpy import save_file

from fedmq.aggregator.export import Run, read_run
from fedmq.schemas.errors import StoreError
from fedmq.settings import Settings, load_settings
from tests.chaos import one_hot_task
from tests.hostile_broker.forging import Sign
from tests.security.ground import free_port
from tests.system.processes import Program

__all__ = ["DEVICES", "FEDERATION", "MOLE", "Federation"]

FEDERATION = "f"
DEVICES = ("dev-0", "dev-1", "dev-2")
MOLE = "mole"
"""A device of the federation that does not work, but lends its key to the broker."""

_ROOT = Path(__file__).resolve().parents[2]
_SMALLEST_MESSAGE = 16 << 10
_REFUSED = re.compile(r"refused topic=\S+ times=(\d+) detail='(it is [^':]+)")


class Federation:
    """Its folder and processes.

    Args:
        folder: for everything; made.
        parts: whether the model and every update take several messages.
        mutation: a key of `tests.hostile_broker.mutated.MUTATIONS`; None for the real program.

    """

    def __init__(self, folder: Path, *, parts: bool, mutation: str | None = None) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.root = folder / "secure"
        self.port, self.behind = free_port(), free_port()
        self.programs: list[Program] = []
        self._parts = parts
        self._devices = folder / "devices"
        self._module = ["-m", "tests.hostile_broker.mutated", mutation] if mutation else ["-m", "fedmq"]
        for name in DEVICES:
            (self._devices / name).mkdir(parents=True)
        shutil.copy(one_hot_task.__file__, folder / "task.py")
        entries = len(DEVICES) * one_hot_task.PLACES + (3 * _SMALLEST_MESSAGE // 4 if parts else 0)
        save_file({"counts": np.zeros(entries, np.float32)}, folder / "weights.safetensors")
        (folder / "ids.txt").write_text("".join(f"{name}\n" for name in (*DEVICES, MOLE)))
        done = self._start("provision", ["-m", "fedmq", "provision"], "--out", str(self.root), "--federation",
                           FEDERATION, "--clients", str(folder / "ids.txt"), "--port", str(self.port),
                           "--listen", "127.0.0.1", "--task", str(folder / "task.py"))  # fmt: skip
        assert done.ends() == 0, done.log
        self.programs.clear()
        configuration = self.root / "broker" / "mosquitto.conf"
        text = configuration.read_text()
        assert f"listener {self.port} " in text
        configuration.write_text(text.replace(f"listener {self.port} ", f"listener {self.behind} "))

    @property
    def operator(self) -> Settings:
        """Of who looks."""
        return load_settings(self.root / "operator" / "federation.toml", environment={})

    def signs(self) -> dict[str, Sign]:
        """What a hostile broker can sign with: a key of its own, and a device's that helps it."""
        mole = load_pem_private_key((self.root / "devices" / MOLE / "signing.pem").read_bytes(), None)
        assert isinstance(mole, Ed25519PrivateKey)
        return {"stranger": Ed25519PrivateKey.generate().sign, MOLE: mole.sign}

    def aggregator(self, run: str, versions: int | None = None, *options: str) -> Program:
        """Start the aggregator of a run, which is finished after so many versions."""
        settings = [
            f"aggregator.folder={self.folder / run}",
            f"aggregator.init={self.folder / 'weights.safetensors'}",
            "aggregator.snapshot_codec=float32",
            "aggregator.publish_interval=0.05",
            "aggregator.strategy=fedasync_delta",
            "aggregator.alpha=1.0",
            "aggregator.staleness=constant",
            *([f"aggregator.goal.versions={versions}"] if versions is not None else []),
        ]
        return self._fedmq("aggregator", "aggregator", "aggregator", settings, {}, *options)

    def client(self, name: str) -> Program:
        """Start a device."""
        environment = {"CHAOS_CLIENT": str(DEVICES.index(name)), "CHAOS_DEVICE": str(self._devices / name)}
        return self._fedmq(name, "client", f"devices/{name}", [f"device.folder={self._devices}"], environment,
                           "--client-id", name)  # fmt: skip

    def train(self, on: bool) -> None:
        """Let devices train, or only deliver what they have."""
        stop = self._devices / one_hot_task.STOP
        stop.unlink(missing_ok=True) if on else stop.touch()

    def trained(self, name: str) -> list[int]:
        """The sequence numbers that this device has trained for, in order."""
        file = self._devices / name / one_hot_task.TRAINED
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def stored(self, name: str) -> int:
        """How many updates have ever been in this device's outbox."""
        return self._outbox(name, "SELECT value FROM meta WHERE key = 'next'")

    def waiting(self, name: str) -> int:
        """How many are in it."""
        return self._outbox(name, "SELECT count(*) FROM entry")

    def run(self, run: str) -> Run | None:
        """As of its last commit; None before the first."""
        try:
            return read_run(self.folder / run)
        except StoreError:
            return None

    def refusals(self) -> Counter[str]:
        """At least so many messages were refused, by reason, as the processes say."""
        found: Counter[str] = Counter()
        for program in self.programs:
            most: Counter[str] = Counter()
            for times, why in _REFUSED.findall(program.log):
                most[why] = max(most[why], int(times))
            found += most
        return found

    def _fedmq(
        self, name: str, command: str, bundle: str, settings: list[str], environment: dict[str, str], *options: str
    ) -> Program:
        settings = [*settings, "broker.reconnect_max_seconds=0.3", "plan.retrain_after=0.3", "plan.codec=float32",
                    "plan.zstd=false"]  # fmt: skip
        if self._parts:
            settings.append(f"broker.max_message_bytes={_SMALLEST_MESSAGE}")
        config = ["--config", f"{self.root}/{bundle}/federation.toml", *options, *(f"--set={one}" for one in settings)]
        return self._start(name, [*self._module, command], *config, environment=environment)

    def _start(
        self, name: str, module: list[str], *arguments: str, environment: dict[str, str] | None = None
    ) -> Program:
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT), **(environment or {})}
        log = self.folder / f"{name}-{len(self.programs)}.log"
        self.programs.append(Program(name, [*module, *arguments], log, environment))
        return self.programs[-1]

    def _outbox(self, name: str, query: str) -> int:
        path = self._devices / name / "outbox.sqlite"
        if not path.exists():
            return 0
        outbox = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            row = outbox.execute(query).fetchone()
        finally:
            outbox.close()
        return int(row[0]) if row else 0
