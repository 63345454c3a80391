"""One device: what of it survives a crash, and the client that runs on it."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.fetch import Fetch
from fedmq.edge_client.job import Made
from fedmq.edge_client.outbox import Outbox
from fedmq.edge_client.runner import Job
from fedmq.edge_client.service import ClientService
from fedmq.edge_client.shown import last_will
from fedmq.schemas.topics import Topics
from fedmq.transport.memory import MemoryBroker, MemoryLink
from tests.chaos.virtual.crash_points import Crash, CrashPoints
from tests.chaos.virtual.one_hot import OneHotTraining, Trainings
from tests.chaos.virtual.watched_broker import WatchedBroker

__all__ = ["Device"]


class Device:
    """A client's process, its folder, and whoever starts it again when it is down.

    Attributes:
        service: the client; None while it is down.
        stored: digests of all updates that were ever in its outbox.
        forgotten: of those that an older copy of the folder knew nothing of.

    """

    def __init__(
        self,
        client_id: str,
        folder: Path,
        broker: WatchedBroker,
        topics: Topics,
        trainings: Trainings,
        randomness: random.Random,
        seen: Counter[str],
    ) -> None:
        self.client_id = client_id
        self.points = CrashPoints(seen)
        self.down_seconds = 1.0
        self.service: ClientService | None = None
        self.link: MemoryLink | None = None
        self.outbox: Outbox | None = None
        self._fetch: Fetch | None = None
        self.stored: set[str] = set()
        self.forgotten: set[str] = set()
        self._folder = folder
        self._images: list[Path] = []
        self._broker = broker
        self._topics = topics
        self._trainings = trainings
        self._random = randomness
        self._start_at = 0.0

    def work(self) -> None:
        """Do what is due now."""
        if self.service is None:
            if self._broker.time.now < self._start_at:
                return
            self._start()
        assert self.link is not None
        assert self.service is not None
        try:
            while self.link.waiting and self.service.stopped is None:
                event = self.link.poll(0.0)
                assert event is not None
                self.service.handle(event)
                if self.service.stopped is None:
                    self.service.tick()
            if self.service.stopped is None:
                self.service.tick()
        except Crash:
            if self._random.random() < 0.5:
                self.link.flush(5.0)  # what it has said is on its way: a network outlives a process
            self.kill()
        else:
            if self.service.stopped is not None:
                self.kill()

    def deadline(self) -> float | None:
        """When `work` is due even if nothing arrives, in virtual seconds."""
        return self._start_at if self.service is None else self.service.deadline()

    def kill(self) -> None:
        """End it without a goodbye; it starts again after `down_seconds`."""
        if self.link is not None:
            self.link.die()
        if self.outbox is not None:
            self.outbox.close()
        if self._fetch is not None:
            self._fetch.close()
        self.service = self.link = self.outbox = None
        self._start_at = self._broker.time.now + self.down_seconds

    def copy(self) -> None:
        """Take an image of its disk."""
        image = self._folder.with_name(f"{self._folder.name}-image-{len(self._images)}")
        self._images.append(shutil.copytree(self._folder, image, ignore=shutil.ignore_patterns("lock", "*-shm")))

    def restore(self, ago: int) -> None:
        """Put an image back; 0 is the last one."""
        if len(self._images) <= ago:
            return
        self.kill()
        before = self._digests()
        shutil.rmtree(self._folder)
        shutil.copytree(self._images[-1 - ago], self._folder)
        self.forgotten |= before - self._digests()

    def waiting(self) -> int:
        """Updates in its outbox."""
        return len(self.outbox.pending()) if self.outbox is not None else len(self._digests())

    def _digests(self) -> set[str]:
        outbox = Outbox(self._folder, new_id=self._id)
        digests = {offer.digest for offer in outbox.pending()}
        outbox.close()
        return digests

    def _start(self) -> None:
        incarnation = self._id()
        self.outbox = Outbox(self._folder, new_id=self._id)
        self.link = self._broker.link(
            self.client_id,
            will=last_will(self._topics, self.client_id, incarnation),
            max_message_bytes=self._broker.max_message_bytes,
        )
        self._fetch = Fetch(self.link, self._topics, self.client_id, self._folder / "model.body", 8)
        knows_layout = self.client_id != "client-0"
        self.service = ClientService(
            link=self.link,
            topics=self._topics,
            client_id=self.client_id,
            core=ClientCore(incarnation, random.Random(self._random.random()), self.outbox.pending()),
            incarnation=incarnation,
            outbox=self.outbox,
            training=OneHotTraining(self._trainings, self.client_id, knows_layout=knows_layout),
            fetch=self._fetch,
            runner=_VirtualRunner(self._broker, self._trainings, lambda: self._random.uniform(0.1, 1.0)),
            clock=lambda: self._broker.time.now,
            step=self._step,
        )
        self.link.open()

    def _step(self, point: str) -> None:
        if point == "stored":
            assert self.outbox is not None
            self.stored.add(self.outbox.pending()[-1].digest)
        self.points.step(point)

    def _id(self) -> str:
        return f"{self._random.getrandbits(128):032x}"


class _VirtualRunner:
    """Trains when a job's virtual time has passed, so that a crash before that leaves no trace."""

    def __init__(self, broker: MemoryBroker, trainings: Trainings, seconds: Callable[[], float]) -> None:
        self._time = broker.time
        self._trainings = trainings
        self._seconds = seconds
        self._job: Job | None = None
        self._due = 0.0

    def start(self, job: Job) -> None:
        """Begin."""
        self._job, self._due = job, self._time.now + self._seconds()
        self._time.at(self._due, lambda: None)  # so that the clock stops there

    def take(self) -> Made | Exception | None:
        """What came of it."""
        if self._job is None or self._time.now < self._due or self._trainings.over:
            return None
        job, self._job = self._job, None
        try:
            return job()
        except Exception as error:  # as in the field: the client reports it
            return error
