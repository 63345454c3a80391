"""A federation in virtual time in which everything may crash and nothing may be lost or counted twice."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from fedmq.aggregator import transfers
from fedmq.aggregator.pace import Pace
from fedmq.aggregator.strategies import Strategy
from fedmq.schemas import parts
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Head
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode
from fedmq.transport.memory import Faults
from fedmq.transport.virtual_time import VirtualTime
from tests.chaos.virtual.device import Device
from tests.chaos.virtual.forgetful_disk import ForgetfulDisk
from tests.chaos.virtual.one_hot import LAYOUT, Trainings
from tests.chaos.virtual.server import FEDERATION, Server
from tests.chaos.virtual.watched_broker import WatchedBroker

__all__ = ["World", "a_world"]

_SETTLED_WITHIN = 3600.0  # virtual seconds: an unanswered offer is repeated after two minutes at most


Sync = Callable[[ForgetfulDisk], Callable[[int], None]]


@contextmanager
def a_world(
    strategy: Strategy,
    *,
    devices: int = 3,
    seed: int = 0,
    sync: Sync | None = None,
    part_bytes: int | None = None,
    commit_every: float = 0.0,
) -> Iterator[World]:
    """A world in a temporary folder, in memory where there is such a place.

    `part_bytes` fit into one message. So many seconds pass between two commits, as where the disk is slow.
    """
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fedmq-chaos-", dir=memory if memory.is_dir() else None))
    largest = 1 << 28 if part_bytes is None else parts.HEADER_BYTES + part_bytes
    with pytest.MonkeyPatch.context() as patch:
        if part_bytes is not None:  # smaller than any real one, so that small models have many
            for module in (parts, transfers):
                patch.setattr(module, "GRAIN", part_bytes)
        if commit_every:
            patch.setattr(Pace, "due", lambda pace, now, **_: now >= pace.ended + commit_every)
            patch.setattr(Pace, "deadline", lambda pace: pace.ended + commit_every)
        world = World(folder, strategy, devices=devices, seed=seed, sync=sync, max_message_bytes=largest)
        try:
            yield world
        finally:
            world.close()
            shutil.rmtree(folder)


class Machine(Protocol):
    """Something that works in this world."""

    def work(self) -> None:
        """Do what is due now."""

    def deadline(self) -> float | None:
        """When `work` is due even if nothing arrives, in virtual seconds."""


class World:
    """A broker, an aggregator and some clients.

    Args:
        folder: for the folders of all of them.
        strategy: one without momentum, whose numbers the accounts can follow.
        devices: how many clients.
        seed: of everything random.
        sync: what the store calls to have something reach this disk; the disk's own `sync` if None.

    Attributes:
        starts: the weights of each run's version 0, by run id.
        others: machines that work beside these.
        rival: a second aggregator that works at the same time.
        backups: copies of the run's folder, the newest last.
        wrong: what was seen to be wrong on the way.
        seen: what happened, how often.

    """

    def __init__(
        self,
        folder: Path,
        strategy: Strategy,
        *,
        devices: int,
        seed: int,
        sync: Sync | None,
        max_message_bytes: int = 1 << 28,
    ) -> None:
        self.folder = folder
        self.strategy = strategy
        self.random = random.Random(seed)
        self.topics = Topics(FEDERATION)
        self.time = VirtualTime()
        self.broker = WatchedBroker(self.topics, seed=seed, time=self.time, max_message_bytes=max_message_bytes)
        self.trainings = Trainings()
        self.disk = ForgetfulDisk()
        self.starts: dict[str, Vector] = {}
        self.wrong: list[str] = []
        self.seen: Counter[str] = Counter()
        self._sync = (sync or (lambda disk: disk.sync))(self.disk)
        self._folders = 0
        self._broker_starts_at: float | None = None
        self._disk_works_at: float | None = None
        self.rival: Server | None = None
        self.backups: list[Path] = []
        self.server = self.machine(self.new_folder(), np.zeros(LAYOUT.size, np.float32))
        self.devices = [
            Device(
                f"client-{n}", folder / f"client-{n}", self.broker, self.topics, self.trainings, self.random, self.seen
            )
            for n in range(devices)
        ]
        self.others: list[Machine] = []

    @property
    def run(self) -> str:
        """The id of the run that this world began with."""
        return next(iter(self.starts))

    def machine(self, folder: Path, weights: Vector) -> Server:
        """A machine that goes on with what is in a folder, or begins a run with these weights in a new one."""
        run = f"{self.random.getrandbits(128):032x}"
        self.starts[run] = weights.copy()
        return Server(folder, (run, weights), self.broker, self.strategy, self.disk, self.random, self.seen, self._sync)

    def new_folder(self) -> Path:
        """A path where nothing is yet."""
        self._folders += 1
        return self.folder / f"run-{self._folders}"

    def pass_time(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let so many virtual seconds pass, or fewer if `until` is true before; whether it was."""
        end = self.time.now + seconds
        while not until():
            if self.time.now >= end:
                return False
            self._step(end)
        return True

    def copy_folders(self) -> None:
        """Copy every folder as it is now, for someone to put it back later."""
        if self.server.folder.exists():
            self.backups.append(self.server.copy_folder(self.new_folder()))
        for device in self.devices:
            device.copy()

    def stop_broker(self, seconds: float, *, forget: bool) -> None:
        """Have the broker die and come back."""
        self.broker.stop(forget=forget)
        self._broker_starts_at = self.time.now + seconds

    def fill_disk(self, seconds: float) -> None:
        """Have the aggregator's disk be full for a while."""
        self.disk.full = True
        self._disk_works_at = self.time.now + seconds

    def shown(self) -> Head | None:
        """The head that the broker keeps."""
        payload = self.broker.retained.get(self.topics.model)
        try:
            return decode(payload, Head)[0] if payload else None
        except ProtocolError:  # a crash never tears a message
            self.wrong.append("the broker keeps a head that cannot be read")
            return None

    def settle(self) -> None:
        """End all faults and all trainings, and wait until everything that was trained has its verdict."""
        self.broker.faults = Faults()
        self.trainings.over = True
        machines: list[Server | Device] = [self.server, *self.devices]
        for machine in machines:
            machine.points.disarm()
            machine.down_seconds = 1.0
        self.server.power_fails = False
        if self.server.link is not None:
            # A head that another overtook stays so until the next connection. Only this network lets that happen.
            self.server.link.drop()
        if not self.pass_time(_SETTLED_WITHIN, self._settled):
            waiting = {device.client_id: device.waiting() for device in self.devices}
            self.wrong.append(f"after an hour without faults there is no rest; waiting in outboxes: {waiting}")

    def close(self) -> None:
        """End every process."""
        machines: list[Server | Device] = [self.server, *([self.rival] if self.rival else []), *self.devices]
        for machine in machines:
            machine.kill()

    def _settled(self) -> bool:
        core = self.server.core
        if core is None or not self.broker.running or self.rival is not None:
            return False
        head = self.shown()
        if head is None or (head.run, head.version) != (core.state.run, core.state.version):
            return False
        return all(device.service is not None and not device.waiting() for device in self.devices)

    def _step(self, until: float) -> None:
        if self._broker_starts_at is not None and self.time.now >= self._broker_starts_at:
            self._broker_starts_at = None
            self.broker.start()
        if self._disk_works_at is not None and self.time.now >= self._disk_works_at:
            self._disk_works_at = None
            self.disk.full = False
        machines: list[Machine] = [self.server, *([self.rival] if self.rival else []), *self.devices, *self.others]
        for machine in machines:
            machine.work()
        times = [machine.deadline() for machine in machines] + [self._broker_starts_at, self._disk_works_at]
        due = [at for at in times if at is not None]
        # A little at least: what is overdue and cannot be done must not stop the clock.
        self.time.step(min(until, max(self.time.now + 0.001, min(due, default=until))))
