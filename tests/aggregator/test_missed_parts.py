"""Parts that somebody misses are published again, but no client can fill the link with them, or the links of others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from fedmq.aggregator.kept_snapshot import Kept
from fedmq.aggregator.snapshots import Snapshots
from fedmq.schemas.messages import Need
from fedmq.schemas.parts import GRAIN, HEADER_BYTES
from fedmq.schemas.topics import Topics
from fedmq.transport.memory import MemoryBroker, MemoryLink
from tests.aggregator.small_run import RUN, head_of

TOPICS = Topics("narrow")
PARTS = 200
BODY = memoryview(bytes(PARTS * GRAIN))
TICK = 0.01


class NarrowLink(MemoryLink):
    """A link that carries so many messages a second, and notes which."""

    def __init__(self, per_second: float) -> None:
        super().__init__(MemoryBroker(), "aggregator", None, False, GRAIN + HEADER_BYTES)
        self.published: list[tuple[float, str]] = []
        self.now = 0.0
        self._per_second, self._waiting, self._carries = per_second, 0, 0.0

    @property
    def in_flight(self) -> int:
        """How many wait to be carried."""
        return self._waiting

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        """Note it; it waits to be carried."""
        self.published.append((self.now, topic))
        self._waiting += 1
        return True

    def carry(self) -> None:
        """A tick passes."""
        self.now += TICK
        self._carries += self._per_second * TICK
        while self._carries >= 1.0:
            self._carries, self._waiting = self._carries - 1.0, max(0, self._waiting - 1)


class Publishing:
    """An aggregator's snapshots on a narrow link."""

    def __init__(self, per_second: float = 300.0) -> None:
        self.link = NarrowLink(per_second)
        self.snapshots = Snapshots(self.link, TOPICS, None)
        self.snapshots.connected(None, 0.0)
        self.first_slot: int | None = None

    def begin(self, version: int) -> None:
        head = head_of(version, len(BODY))
        self.snapshots.begin(head, Kept(BODY, None), self.link.now)

    def ticks(self, seconds: float) -> Iterator[float]:
        """So much time, in ticks; what happens in one is what its loop does."""
        until = self.link.now + seconds
        while self.link.now < until:
            self.link.carry()
            yield self.link.now
            out = self.snapshots.work(self.link.now)
            if out is not None and out[0].version == 0:
                self.first_slot = out[0].slot

    def out(self, version: int, *, within: float = 60.0) -> float:
        """Publish a snapshot; how long that took."""
        self.begin(version)
        begun = self.link.now
        for now in self.ticks(within):
            if not self.snapshots.busy:
                return now - begun
        pytest.fail(f"version {version} is not out after {within:g} s")

    def need(self, *parts: int, client_id: str = "ada", version: int = 0) -> None:
        self.snapshots.need(client_id, Need(run=RUN, version=version, parts=parts), self.link.now)

    def again(self, since: int) -> list[int]:
        """The parts of the first snapshot that were published since then."""
        places = [TOPICS.part_of(topic) for _, topic in self.link.published[since:]]
        return [place[1] for place in places if place and place[0] == self.first_slot]


@pytest.fixture
def publishing() -> Publishing:
    """The first snapshot is out."""
    made = Publishing()
    made.out(0)
    return made


def everything(turn: int) -> tuple[int, ...]:
    """The next 64 parts: whoever asks so asks for all of them again and again."""
    return tuple((64 * turn + part) % PARTS for part in range(64))


@pytest.mark.parametrize("clients", [1, 20])
def test_who_asks_again_and_again_delays_no_snapshot(publishing: Publishing, clients: int) -> None:
    publishing.begin(1)
    undisturbed, begun = PARTS / 300.0, publishing.link.now
    for turn, _ in enumerate(publishing.ticks(60.0)):
        if not publishing.snapshots.busy:
            break
        for client in range(clients):
            publishing.need(*everything(turn + client), client_id=f"evil-{client}")
    assert publishing.link.now - begun < undisturbed * 4 / 3 + 0.2


def test_one_client_has_64_parts_published_again_and_then_two_a_second(publishing: Publishing) -> None:
    since = len(publishing.link.published)
    for turn, _ in enumerate(publishing.ticks(50.0)):
        publishing.need(*everything(turn))
    assert len(publishing.again(since)) == pytest.approx(64 + 2 * 50, abs=2)


def test_a_part_is_published_again_more_and_more_seldom_however_many_ask(publishing: Publishing) -> None:
    since = len(publishing.link.published)
    for turn, _ in enumerate(publishing.ticks(600.0)):
        publishing.need(7, client_id=f"device-{turn % 1000}")
    times = [at for at, _ in publishing.link.published[since:]]
    pauses = [round(later - at) for at, later in pairwise(times)]
    assert pauses == [2, 4, 8, 16, 32, 64, 120, 120, 120]


def test_who_asks_for_a_window_each_time_that_its_link_breaks_gets_all_of_it(publishing: Publishing) -> None:
    since = len(publishing.link.published)
    for window in range(0, PARTS, 8):
        publishing.need(*range(window, window + 8))
        for _ in publishing.ticks(5.0):
            pass
    assert publishing.again(since) == list(range(PARTS))


def test_what_is_asked_for_while_a_snapshot_comes_is_not_kept_until_it_is_out(publishing: Publishing) -> None:
    publishing.begin(1)
    since = len(publishing.link.published)
    publishing.need(3, 5)
    for _ in publishing.ticks(0.2):
        pass
    assert publishing.snapshots.busy
    assert publishing.again(since) == [3, 5]


def test_parts_that_a_snapshot_does_not_have_are_not_published(publishing: Publishing) -> None:
    since = len(publishing.link.published)
    publishing.need(PARTS - 1, PARTS, 1 << 60)
    for _ in publishing.ticks(1.0):
        pass
    assert publishing.again(since) == [PARTS - 1]
    assert publishing.snapshots.deadline() is None
