"""The aggregator's machine: its folder, the process that works in it, and whoever starts that again when it is down."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.fence import Fence
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.room import Room
from fedmq.aggregator.service import AggregatorService, Ending
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import Strategy
from fedmq.aggregator.transfers import Transfers
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import StoreError
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import AggregatorPresence
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.transport.link import Will
from fedmq.transport.memory import MemoryLink
from tests.chaos.virtual.crash_points import Crash, CrashPoints
from tests.chaos.virtual.forgetful_disk import ForgetfulDisk
from tests.chaos.virtual.one_hot import LAYOUT
from tests.chaos.virtual.watched_broker import WatchedBroker

__all__ = ["FEDERATION", "Server"]

FEDERATION = "chaos"
PLAN = Plan(retrain_after=1.0, codec="float32", zstd=False)


class Server:
    """One machine with one run folder.

    Args:
        folder: of the run; made if it is not there.
        start: run id and weights of version 0, if the folder is new.
        broker, strategy, disk: what it works with.
        randomness: for ids.
        seen: counts the crashes.
        sync: what the store calls to have something reach the disk.

    Attributes:
        replaces: whether its run may take the place of another one's head.
        ending: how the last process ended, if it ended by itself.
        incarnation: of the process that was started last.

    """

    def __init__(
        self,
        folder: Path,
        start: tuple[str, Vector],
        broker: WatchedBroker,
        strategy: Strategy,
        disk: ForgetfulDisk,
        randomness: random.Random,
        seen: Counter[str],
        sync: Callable[[int], None],
    ) -> None:
        self.folder = folder
        self.points = CrashPoints(seen)
        self.down_seconds = 1.0
        self.power_fails = False
        self.replaces = False
        self.service: AggregatorService | None = None
        self.core: AggregatorCore | None = None
        self.link: MemoryLink | None = None
        self.ending: Ending | None = None
        self.incarnation = ""
        self._start_with = start
        self._broker = broker
        self._strategy = strategy
        self._disk = disk
        self._sync = sync
        self._random = randomness
        self._store: Store | None = None
        self._transfers: Transfers | None = None
        self._start_at = 0.0

    def work(self) -> None:
        """Do what is due now."""
        try:
            if self.service is None:
                if self._broker.time.now < self._start_at:
                    return
                self._start()
            assert self.link is not None
            assert self.service is not None
            while self.link.waiting and self.service.ended is None:
                event = self.link.poll(0.0)
                assert event is not None
                self.service.handle(event)
                if self.service.ended is None:
                    self.service.tick(idle=False)
            if self.service.ended is None:
                self.service.tick()
        except Crash:
            self._crash()
        except StoreError:
            if not self._disk.full:
                raise
            self.kill()  # it could not even start
        if self.service is not None and self.service.ended is not None:
            self.ending = self.service.ended
            self.kill()

    def deadline(self) -> float | None:
        """When `work` is due even if nothing arrives, in virtual seconds."""
        if self.service is None:
            return self._start_at
        due = self.service.deadline()
        return None if due is None else self._broker.time.now + due - self.service.now()

    def kill(self) -> None:
        """End it without a goodbye, perhaps with the power; it starts again after `down_seconds`."""
        if self.link is not None:
            self.link.die()
        if self._store is not None:
            self._store.close()
        if self._transfers is not None:
            self._transfers.close()
        self.service = self.core = self.link = self._store = None
        if self.power_fails and self.folder.exists():
            self._disk.cut_power(self.folder)
        self._start_at = self._broker.time.now + self.down_seconds

    def _crash(self) -> None:
        if self.link is not None and self._random.random() < 0.5:
            self.link.flush(5.0)  # what it has said is on its way: a network outlives a process
        self.kill()

    def most_whole(self) -> int:
        """Updates in parts of one client that are whole and whose verdict no commit has."""
        return max(map(len, self._transfers._whole.values()), default=0) if self._transfers else 0

    def copy_folder(self, to: Path) -> Path:
        """A copy of the run's folder, made while it is at work."""
        shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("lock", "*-shm"))
        self._disk.sync_all(to)
        return to

    def state(self) -> State | None:
        """What a process that starts now would go on from; None if there never was a commit. Not while it works."""
        store = Store(self.folder, FEDERATION, sync=self._sync)
        state = store.load(LAYOUT)
        store.close()
        return state

    def _start(self) -> None:
        topics = Topics(FEDERATION)
        self.ending = None
        self.incarnation = f"{self._random.getrandbits(128):032x}"
        self._store = Store(self.folder, FEDERATION, step=self.points.step, sync=self._sync)
        state = self._store.load(LAYOUT)
        if state is None:
            run, weights = self._start_with
            state = State.initial(run, LAYOUT, weights.copy())
        self.core = self._core_of(state)
        gone = AggregatorPresence(state="offline", run=state.run, incarnation=self.incarnation, version=state.version)
        self.link = self._broker.link(
            "aggregator",
            will=Will(topics.aggregator, encode(gone)),
            durable=True,
            max_message_bytes=self._broker.max_message_bytes,
        )
        self._transfers = Transfers(Room(self.folder / "parts", 1 << 20))
        self.service = AggregatorService(
            link=self.link,
            topics=topics,
            core=self.core,
            publisher=Publisher(self.link, topics, PLAN, codec_named("float32"), 0.1, self.folder / "parts"),
            incarnation=self.incarnation,
            fence=Fence(
                self.incarnation,
                None if self.replaces else frozenset(state.replaced),
                self._store.predecessors(self.incarnation),
            ),
            store=self._store,
            transfers=self._transfers,
            reload=self._reload,
            clock=lambda: self._broker.time.now,
            step=self.points.step,
        )
        self.link.open()

    def _core_of(self, state: State) -> AggregatorCore:
        return AggregatorCore(state, self._strategy, Rules(state.run, LAYOUT), Goal())

    def _reload(self) -> AggregatorCore:
        """Go on from the last commit, as a server does when its disk works again."""
        assert self._store is not None
        self._store.reopen()
        state = self._store.load(LAYOUT, again=True)
        assert state is not None
        self.core = self._core_of(state)
        return self.core
