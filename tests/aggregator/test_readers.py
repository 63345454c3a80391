"""Which slot a snapshot overwrites when devices are slower than versions, and one of them claims to read for ever."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from fedmq.aggregator.readers import Readers, Turns
from fedmq.schemas.messages import Head, Need
from fedmq.transport.memory import MemoryBroker
from tests.aggregator.small_run import RUN
from tests.aggregator.test_snapshots import Showing

EVERY = 25.0  # seconds, a version
STEP = 5.0
HOUR = 3600.0


class Reader:
    """A device that takes the newest snapshot, again and again, as long as its slot is not overwritten.

    Args:
        seconds: that a snapshot takes; infinite if it only claims to read.
        begins: when it takes the first.
        trains: seconds between two of them.

    Attributes:
        took: for each that was taken, its version, and how many there were after it.
        lost: how many were overwritten.

    """

    def __init__(self, name: str, seconds: float, begins: float = 0.0, trains: float = 0.0) -> None:
        self.name = name
        self.seconds = seconds
        self.took: list[tuple[int, int]] = []
        self.lost = 0
        self._reading: tuple[Head, float] | None = None
        self._says_at = self._begins = begins
        self._trains = trains

    def step(self, shown: Showing, slots: dict[int, Head], newest: Head, now: float) -> None:
        head, since = self._reading or (newest, now)
        if now < self._begins or (self._reading is None and self.took and newest.version <= self.took[-1][0]):
            return  # it trains, or waits for the next
        if slots[head.slot or 0] is not head:
            self.lost += 1
            self._say(shown, head, now, done=True)
            head, since = newest, now
        if self._reading is None or since == now or now >= self._says_at:
            self._say(shown, head, now)
            self._says_at = now + 20.0
        self._reading = head, since
        if now >= since + self.seconds:
            self._say(shown, head, now, done=True)
            self.took.append((head.version, newest.version - head.version))
            self._reading, self._begins = None, now + self._trains

    def _say(self, shown: Showing, head: Head, now: float, *, done: bool = False) -> None:
        shown.snapshots.need(self.name, Need(run=RUN, version=head.version, done=done), now)


def pass_time(folder: Path, seconds: float, *readers: Reader, every: float = EVERY) -> None:
    """Let so many seconds pass, in which there is a version now and then, and these read."""
    shown, slots, version = Showing(MemoryBroker(), folder, size=100), dict[int, Head](), -1
    shown.snapshots._turns = Turns(Random(1))
    for step in range(int(seconds / STEP)):
        now = step * STEP
        if now % every == 0:
            version += 1
            newest = shown.show(version, now)
            slots[newest.slot or 0] = newest
        for reader in readers:
            reader.step(shown, slots, newest, now)


def behind(reader: Reader) -> float:
    """In the mean, how many versions newer there were when it had one."""
    return sum(versions for _, versions in reader.took) / len(reader.took)


def holder() -> Reader:
    return Reader("mallory", float("inf"))


def test_alone_a_device_that_is_slower_than_versions_has_each_that_it_begins(tmp_path: Path) -> None:
    slow = Reader("slow", 40.0)
    pass_time(tmp_path, HOUR, slow)
    assert slow.lost == 0
    assert len(slow.took) > 70
    assert behind(slow) < 2


def test_one_that_holds_whatever_it_has_begun_keeps_nobody_far_behind_for_long(tmp_path: Path) -> None:
    slow = Reader("slow", 40.0, begins=10.0)
    pass_time(tmp_path, 8 * HOUR, holder(), slow)
    assert len(slow.took) > 8 * 4  # with the slot held for an hour each time there were 15
    assert behind(slow) < 3


def test_beside_both_who_is_very_slow_has_a_turn_now_and_then(tmp_path: Path) -> None:
    slow, slower = Reader("slow", 40.0, begins=10.0), Reader("slower", 550.0, begins=15.0)
    pass_time(tmp_path, 8 * HOUR, holder(), slow, slower)
    assert len(slower.took) > 8
    assert len(slow.took) > 8 * 3


@pytest.mark.parametrize("seconds", [250.0, 1700.0])
def test_beside_quick_ones_who_is_very_slow_loses_nothing(tmp_path: Path, seconds: float) -> None:
    slow = Reader("slow", seconds)
    quick = [Reader(f"quick-{number}", 10.0, trains=20.0 + 5.0 * number) for number in range(8)]
    pass_time(tmp_path, 4 * HOUR, slow, *quick)
    assert slow.lost == 0
    assert len(slow.took) >= 4 * HOUR / (seconds + EVERY) - 1
    assert sum(reader.lost for reader in quick) > 100  # though not two in a row


def test_many_slow_ones_that_begin_at_any_time_get_on(tmp_path: Path) -> None:
    slow = [Reader(f"slow-{number}", 60.0, begins=35.0 * number) for number in range(10)]
    pass_time(tmp_path, 4 * HOUR, *slow)
    for reader in slow:
        assert len(reader.took) > 4 * HOUR / 120
        assert behind(reader) < 4


def test_a_device_reads_one_slot_at_a_time_and_is_done_with_each_by_itself(tmp_path: Path) -> None:
    shown = Showing(MemoryBroker(), tmp_path, size=100)
    first, second = shown.show(0, 0.0), shown.show(1, 1.0)
    shown.need(0, 2.0)
    shown.need(1, 3.0)
    third = shown.show(2, 4.0)
    assert third.slot == first.slot
    shown.snapshots.need("slow", Need(run=RUN, version=2, done=True), 5.0)  # and not with the other
    assert shown.show(3, 6.0).slot == third.slot
    assert shown.show(4, 64.0).slot == second.slot  # a minute after it said so


def in_others_way(folder: Path, begins: float) -> bool:
    """Whether one that says at this time that it reads version 0 has one lose two in a row."""
    shown = Showing(MemoryBroker(), folder, size=100)
    shown.snapshots._turns = Turns(Random(1))
    loses = [shown.show(0, 0.0).slot]
    for version in range(1, 4):
        loses.append(shown.show(version, 25.0 * version).slot)
        shown.snapshots.need("loses", Need(run=RUN, version=version), 25.0 * version + 1)
        if begins < 25.0 * version + 25.0:
            shown.need(0, max(begins, 25.0 * version + 1))
    return loses[3] == loses[2]


def test_who_comes_to_a_slot_when_there_is_a_newer_one_is_not_in_the_way_of_others(tmp_path: Path) -> None:
    assert in_others_way(tmp_path, 1.0)
    assert in_others_way(tmp_path, 34.0)  # it may not have heard of the newer one yet
    assert not in_others_way(tmp_path, 36.0)


def test_more_readers_than_are_remembered_push_out_those_that_have_been_silent_for_longest() -> None:
    readers = Readers()
    for number in range(3000):
        readers.reads(f"device-{number}", float(number % 10), is_newest=True)
    assert readers.now(10.0) == {f"device-{number}" for number in range(3000 - 1024, 3000)}
    assert readers.from_the_beginning(10.0) == readers.now(10.0)
    for number in range(3000):
        readers.leaves(f"device-{number}")
    assert not readers


def test_who_was_overwritten_when_a_turn_was_over_counts_as_one_that_loses() -> None:
    turns, older, newest = Turns(Random(1)), Readers(), Readers()
    older.reads("was-long", 0.0, is_newest=True)
    assert not turns.keeps(older, newest, 100, HOUR, 1.0)
    newest.reads("was-long", 2.0, is_newest=True)
    older = Readers()
    older.reads("other", 2.0, is_newest=True)
    assert not turns.keeps(older, newest, 100, HOUR - 1.0, 3.0)


@pytest.mark.parametrize("size", [100, 60 << 20])
def test_a_turn_is_a_twelfth_of_the_longest_one_or_that_doubled_now_and_then(size: int) -> None:
    longest, lengths = max(HOUR, size / (16 << 10)), list[int]()
    turns, older, newest = Turns(Random(1)), Readers(), Readers()
    older.reads("older", 0.0, is_newest=True)
    newest.reads("newest", 0.0, is_newest=True)
    assert turns.keeps(older, newest, size, 0.0, 1.0)
    for _ in range(4000):
        length = next(twelfths for twelfths in range(1, 13)
                      if not turns.keeps(older, newest, size, twelfths * longest / 12, 1.0))  # fmt: skip
        assert turns.keeps(older, newest, size, 0.0, 1.0)
        lengths.append(length)
    counts = {length: lengths.count(length) for length in sorted(set(lengths))}
    assert counts == pytest.approx({1: 3000, 2: 750, 4: 188, 8: 47, 12: 15}, rel=0.3)
