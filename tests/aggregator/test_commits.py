"""What is told follows from what is on the disk: with commits at once, in a thread, slow ones, and ones that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from fedmq.aggregator import service, writer
from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.service import AggregatorService, Ending
from fedmq.aggregator.staleness import constant
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import fedasync, fedasync_delta
from fedmq.aggregator.vectors import to_disk
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.messages import AggregatorPresence, Head, Later, Progress, Receipt, Reply
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.transport.link import Message
from fedmq.transport.memory import MemoryBroker
from tests.aggregator.small_run import RUN, layout_of, offer_of

TOPICS = Topics("kitchen")
LAYOUT: Layout = layout_of(4)
STRATEGY = fedasync_delta(alpha=1.0, staleness=constant())
RULES = Rules(RUN, LAYOUT)


class Disk:
    """What a store syncs with: it can be slow, and it can fail."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.waits = threading.Event()
        self.broken = False

    def sync(self, descriptor: int) -> None:
        if self.broken:
            raise OSError(28, "No space left on device")
        self.waits.set()
        assert self.free.wait(20)
        to_disk(descriptor)


class Kitchen:
    """An aggregator with a store, and one client that is written by hand."""

    def __init__(self, folder: Path, held: Message | None = None) -> None:
        self.disk = Disk()
        self.broker = MemoryBroker()
        self.store = Store(folder, "kitchen", sync=self.disk.sync)
        link = self.broker.link("aggregator")
        self.service = AggregatorService(
            link=link,
            topics=TOPICS,
            core=self.core(self.store.load(LAYOUT) or State.initial(RUN, LAYOUT, np.zeros(4, np.float32))),
            publisher=Publisher(link, TOPICS, Plan(), codec_named("float32"), interval=0.0),
            incarnation="b" * 32,
            store=self.store,
            reload=self.reload,
            clock=lambda: self.broker.time.now,
        )
        if held is not None:
            self.service.handle(held)
        self.link = link
        self.client = self.broker.link("alice")
        self.client.open()
        self.client.subscribe(TOPICS.reply("alice"))
        self.link.open()
        self.receipts: dict[int, Receipt] = {}
        self.later: list[Later] = []
        self.pass_time(1.0)

    def core(self, state: State) -> AggregatorCore:
        return AggregatorCore(state, STRATEGY, RULES, Goal())

    def reload(self) -> AggregatorCore:
        self.store.reopen()
        state = self.store.load(LAYOUT, again=True)
        assert state is not None
        return self.core(state)

    def offer(self, *sequences: int) -> None:
        """Offer updates, each one hot at its number."""
        for sequence in sequences:
            offer, body = offer_of(np.eye(4, dtype=np.float32)[sequence % 4], LAYOUT, sequence=sequence)
            self.client.publish(TOPICS.update("alice"), encode(offer, body))
        self.pass_time(0.5)

    def pass_time(self, seconds: float) -> None:
        until = self.broker.time.now + seconds
        while self.broker.time.now < until and self.service.ended is None:
            event = self.link.poll(0.05)
            if event is not None:
                self.service.handle(event)
            if self.service.ended is None:
                self.service.tick(idle=event is None)
        while self.client.waiting:
            message = self.client.poll(0.0)
            if isinstance(message, Message):
                reply = decode(message.payload, Reply)[0]
                self.receipts |= {receipt.update.sequence: receipt for receipt in reply.receipts}
                self.later += reply.later

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.pass_time(0.1)
            assert time.monotonic() < deadline

    def shown(self) -> tuple[int, list[float], int]:
        """Version and weights of the head, and the version of the progress."""
        head, body = decode(self.broker.retained[TOPICS.model], Head)
        weights = [float(x) for x in np.frombuffer(body, "<f4")]
        return head.version, weights, decode(self.broker.retained[TOPICS.progress], Progress)[0].version

    def complaint(self) -> str:
        return decode(self.broker.retained[TOPICS.aggregator], AggregatorPresence)[0].detail

    def close(self) -> None:
        self.disk.broken = False
        self.disk.free.set()
        if self.service.ended is None:
            self.service._leave(Ending(0, "the test is over"))
        self.service._commits._writer.take(20)
        self.store.close()


@contextmanager
def kitchen(folder: Path, held: Message | None = None) -> Iterator[Kitchen]:
    run = Kitchen(folder, held)
    try:
        yield run
    finally:
        run.close()


@pytest.fixture(params=[1 << 40, -1], ids=["at once", "in a thread"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_AT_ONCE_BYTES", request.param)


@pytest.fixture
def in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_AT_ONCE_BYTES", -1)


@pytest.mark.usefixtures("either_way")
def test_what_was_told_is_there_after_a_restart(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        run.offer(0, 1, 2)
        run.until(lambda: len(run.receipts) == 3)
        run.until(lambda: run.shown()[0] == run.service.committed)
        told, shown = dict(run.receipts), run.shown()
    with kitchen(tmp_path) as run:
        assert run.shown()[0] >= shown[0]
        assert run.shown()[1] == [1, 1, 1, 0]
        run.offer(0, 1, 2)
        run.until(lambda: len(run.receipts) == 3)
        assert run.receipts == told
        assert run.shown()[1] == [1, 1, 1, 0]


@pytest.mark.usefixtures("in_a_thread")
def test_while_a_commit_is_being_written_updates_are_taken_and_nothing_is_told(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        run.disk.free.clear()
        run.disk.waits.clear()
        run.offer(0)
        assert run.disk.waits.wait(20)
        run.offer(1, 2)
        run.pass_time(5.0)
        deadline = run.service.deadline()
        assert deadline is None or deadline > run.service.now()  # else it would spin while it waits for the disk
        assert run.service._core.state.version == 3
        assert not run.receipts
        assert run.shown() == (0, [0, 0, 0, 0], 0)
        run.disk.free.set()
        run.until(lambda: 0 in run.receipts)
        run.until(lambda: len(run.receipts) == 3)
        run.until(lambda: run.shown() == (3, [1, 1, 1, 0], 3))


@pytest.mark.usefixtures("in_a_thread")
def test_what_is_shown_after_a_slow_commit_is_what_was_committed_and_not_what_came_meanwhile(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        run.disk.free.clear()
        run.disk.waits.clear()
        run.offer(0)
        assert run.disk.waits.wait(20)
        run.offer(1)
        run.disk.free.set()
        run.service._commits._writer._thread.join(20)  # type: ignore[union-attr]
        run.disk.free.clear()  # the next commit hangs again
        run.until(lambda: run.shown()[0] == 1)
        assert run.shown()[1] == [1, 0, 0, 0]
        assert list(run.receipts) == [0]
        run.disk.free.set()
        run.until(lambda: run.shown() == (2, [1, 1, 0, 0], 2))


@pytest.mark.usefixtures("either_way")
def test_a_disk_that_fails_forgets_nothing_that_was_told_and_counts_nothing_twice(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        run.offer(0)
        run.until(lambda: 0 in run.receipts)
        run.disk.broken = True
        run.offer(1, 2)
        run.until(lambda: "No space left on device" in run.complaint())
        run.offer(1, 2, 3)
        run.pass_time(90.0)
        assert list(run.receipts) == [0]
        assert {later.reason for later in run.later} == {"disk"}
        assert {later.update.sequence for later in run.later} == {1, 2, 3}
        assert all(0 < later.seconds < 40 for later in run.later)
        assert run.shown()[:2] == (1, [1, 0, 0, 0])
        run.disk.broken = False
        run.until(lambda: run.complaint() == "")
        run.offer(0, 1, 2, 3)
        run.until(lambda: len(run.receipts) == 4)
        assert {receipt.verdict for receipt in run.receipts.values()} == {"accepted"}
        run.until(lambda: run.shown()[:2] == (4, [1, 1, 1, 1]))
    with kitchen(tmp_path) as run:
        assert run.shown()[:2] == (4, [1, 1, 1, 1])


@pytest.mark.usefixtures("either_way")
def test_a_stop_while_the_disk_fails_shows_nothing_of_what_is_forgotten(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        run.offer(0)
        run.until(lambda: 0 in run.receipts and run.shown()[0] == 1)
        run.disk.broken = True
        run.offer(1)
        run.until(run.complaint)
        run.service.stop(Ending(0, "asked to"))
        assert list(run.receipts) == [0]
        assert run.shown()[:2] == (1, [1, 0, 0, 0])
        assert run.shown()[2] <= 1


@pytest.mark.usefixtures("either_way")
def test_a_stop_commits_what_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Virtual time flies while a thread writes.
    monkeypatch.setattr(service, "_LAST_COMMIT_SECONDS", 1e6)
    with kitchen(tmp_path) as run:
        run.offer(0)
        run.until(lambda: 0 in run.receipts)
        offer, body = offer_of(np.ones(4, np.float32), LAYOUT, sequence=1)
        run.service.handle(Message(TOPICS.update("alice"), encode(offer, body)))
        run.service.stop(Ending(0, "asked to"))
    with kitchen(tmp_path) as run:
        assert run.shown()[1] == [2, 1, 1, 1]


@pytest.mark.usefixtures("in_a_thread")
def test_a_stop_does_not_wait_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_LAST_COMMIT_SECONDS", 0.2)
    with kitchen(tmp_path) as run:
        run.disk.free.clear()
        run.disk.waits.clear()
        run.offer(0)
        assert run.disk.waits.wait(20)
        begun = time.monotonic()
        run.service.stop(Ending(0, "asked to"))
        assert time.monotonic() - begun < 10
        assert not run.receipts
    with kitchen(tmp_path) as run:
        run.offer(0)
        run.until(lambda: 0 in run.receipts)
        assert run.shown()[1] == [1, 0, 0, 0]  # once, whether the commit came through or not


@pytest.mark.usefixtures("either_way")
def test_a_disk_that_works_again_while_the_broker_is_away_does_not_make_it_spin(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        run.disk.broken = True
        run.offer(0)
        run.until(run.complaint)
        run.broker.stop()
        run.pass_time(1.0)
        run.disk.broken = False
        run.until(lambda: run.service._disk.why is None)
        deadline = run.service.deadline()
        assert deadline is None or deadline > run.service.now()
        run.broker.start()
        run.until(lambda: run.complaint() == "")


@pytest.mark.usefixtures("in_a_thread")
def test_it_does_not_spin_while_it_tries_a_disk_that_hangs(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        run.disk.broken = True
        run.offer(0)
        run.until(run.complaint)
        run.disk.broken = False
        run.disk.free.clear()
        run.until(lambda: run.service.writing)
        assert run.service.deadline() is None
        run.disk.free.set()
        run.until(lambda: run.complaint() == "")


@pytest.mark.usefixtures("in_a_thread")
def test_an_offer_that_is_repeated_while_a_commit_hangs_is_answered_once(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        run.offer(0)
        run.until(lambda: 0 in run.receipts)
        run.disk.free.clear()
        run.disk.waits.clear()
        run.offer(1)
        run.until(run.disk.waits.is_set)
        for _ in range(50):
            run.offer(0, 1)
        assert len(list(run.service._commits.replies.messages(RUN, "b" * 32, 1 << 20))) == 1
        run.disk.free.set()
        run.until(lambda: 1 in run.receipts)


def test_a_will_that_comes_late_does_not_silence_the_devices(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        for incarnation in ("b" * 32, "d" * 32):
            gone = AggregatorPresence(state="offline", run=RUN, incarnation=incarnation, version=0)
            run.client.publish(TOPICS.aggregator, encode(gone), retain=True)
            run.pass_time(1.0)
            shown = decode(run.broker.retained[TOPICS.aggregator], AggregatorPresence)[0]
            assert (shown.state, shown.incarnation) == ("online", "b" * 32)


@pytest.mark.usefixtures("in_a_thread")
def test_only_what_is_committed_is_evaluated(tmp_path: Path) -> None:
    class Asked:
        idle = True
        versions: ClassVar[list[tuple[int, list[float]]]] = []

        def start(self, version: int, weights: Vector) -> None:
            self.versions.append((version, [float(x) for x in weights]))

        def take(self) -> None:
            return None

    with kitchen(tmp_path) as run:
        run.service._evaluations._evaluator = asked = Asked()
        run.disk.free.clear()
        run.disk.waits.clear()
        run.offer(0)
        assert run.disk.waits.wait(20)
        run.offer(1)
        assert [version for version, _ in asked.versions] in ([], [0])
        run.disk.free.set()
        run.until(lambda: run.service.committed == 2)
        run.pass_time(1.0)
        assert asked.versions[-1] == (2, [1, 1, 0, 0])
        assert all(sum(weights) == version for version, weights in asked.versions)


def test_who_hears_of_a_successor_commits_and_tells_nothing_more(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        run.offer(0)
        run.until(lambda: 0 in run.receipts and run.shown()[0] == 1)
        offer, body = offer_of(np.ones(4, np.float32), LAYOUT, sequence=1)
        run.service.handle(Message(TOPICS.update("alice"), encode(offer, body)))
        successor = AggregatorPresence(state="online", run=RUN, incarnation="e" * 32, version=1)
        run.broker.retained[TOPICS.aggregator] = encode(successor)
        run.service.handle(Message(TOPICS.aggregator, encode(successor)))
        assert run.service.ended is not None
        assert run.service.ended.code == 1
        run.broker.time.step(run.broker.time.now + 1)
        assert list(run.receipts) == [0]
        assert run.shown()[0] == 1
        assert decode(run.broker.retained[TOPICS.aggregator], AggregatorPresence)[0] == successor
    with kitchen(tmp_path) as run:
        assert run.service.committed == 1


def test_an_update_of_the_newest_version_that_waits_for_a_restart_is_judged_with_that_version_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FedAsync needs the weights of an update's base, and those are held when they are shown."""
    monkeypatch.setattr("tests.aggregator.test_commits.STRATEGY", fedasync())
    with kitchen(tmp_path) as run:
        offer, body = offer_of(np.ones(4, np.float32), LAYOUT, sequence=0)
        run.client.publish(TOPICS.update("alice"), encode(offer, body))
        run.until(lambda: 0 in run.receipts and run.shown()[0] == 1)
    offer, body = offer_of(np.ones(4, np.float32), LAYOUT, sequence=1, base_version=1)
    with kitchen(tmp_path, held=Message(TOPICS.update("alice"), encode(offer, body))) as run:
        run.until(lambda: 1 in run.receipts)
        assert (run.receipts[1].verdict, run.receipts[1].reason) == ("accepted", None)
