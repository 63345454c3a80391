"""Snapshots in parts: who reads one may be slow, and a disk that is full or fails costs memory or time alone."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from fedmq.aggregator.kept_snapshot import Kept
from fedmq.aggregator.snapshots import Snapshots
from fedmq.schemas.messages import Head, Need
from fedmq.schemas.parts import HEADER_BYTES
from fedmq.schemas.topics import Topics
from fedmq.transport.memory import MemoryBroker
from tests.aggregator.small_run import RUN, head_of
from tests.aggregator.test_judging import Hall, hall

__all__ = ["hall"]


def test_a_snapshot_for_which_there_is_no_room_takes_none(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        kept = Kept(memoryview(bytes(range(200))), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert not [path for path in opened if path.startswith(str(tmp_path))]
    assert bytes(kept.read(190, 20)) == bytes(range(190, 200))


def make_a_version(hall: Hall) -> None:
    for name in ("alice", "bob"):
        hall.rest()
        hall.send(name, hall.offer(name, 1.0))
        hall.until(lambda name=name: hall.receipts.get(name))  # type: ignore[misc]


def test_a_note_of_the_slots_that_a_full_disk_does_not_take_is_left_out(
    hall: Hall, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noted = tmp_path / "parts" / "slots.json.part"
    noted.symlink_to("/dev/full")
    make_a_version(hall)
    hall.until(lambda: hall.shown() == 1)
    assert "what is in the slots is not noted" in caplog.text


def test_a_snapshot_that_the_disk_does_not_give_back_is_made_anew(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, pread = [], os.pread

    def fails_once(descriptor: int, size: int, offset: int) -> bytes:
        reads.append(offset)
        if len(reads) == 2:
            raise OSError("input/output error")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", fails_once)
    make_a_version(hall)
    hall.until(lambda: hall.shown() == 1)
    assert len(reads) > 2
    assert hall.service.ended is None


class Showing:
    """One process that shows snapshots, over a connection of its own."""

    def __init__(self, broker: MemoryBroker, folder: Path, size: int = 300_000, shown: Head | None = None) -> None:
        self.link = broker.link("aggregator", max_message_bytes=100_000 + HEADER_BYTES)
        self.snapshots = Snapshots(self.link, Topics("slow"), folder)
        self.body = bytes(size)
        self.connect(shown, 0.0)

    def connect(self, shown: Head | None, now: float) -> None:
        self.link.open()
        self.link.poll(0.0)
        self.snapshots.connected(shown, now)

    def show(self, version: int, now: float) -> Head:
        head = head_of(version, len(self.body))
        self.snapshots.begin(head, self.snapshots.keep(memoryview(self.body)), now)
        while True:
            self.link.poll(0.01)
            out = self.snapshots.work(now)
            if out is not None:
                return out[0]
            now += 0.01

    def need(self, version: int, now: float, *parts: int) -> None:
        self.snapshots.need("slow", Need(run=RUN, version=version, parts=parts), now)


def test_a_head_that_claims_any_number_of_topics_has_few_of_them_emptied(tmp_path: Path) -> None:
    broker = MemoryBroker()
    head = Showing(broker, tmp_path / "first").show(0, 0.0)
    planted = head.model_copy(update={"size": 1 << 60, "part_bytes": 1})
    showing = Showing(broker, tmp_path / "second", shown=planted)
    emptied: list[str] = []

    def counted(topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        emptied.append(topic)
        return True

    showing.link.publish = counted  # type: ignore[method-assign]
    showing.snapshots.clear()
    assert len(emptied) == 2 * (2048 + 1)  # of each slot, and that it is empty


def test_a_slot_that_somebody_reads_is_kept_over_a_lost_connection(tmp_path: Path) -> None:
    showing = Showing(MemoryBroker(), tmp_path)
    first = showing.show(0, 0.0)
    showing.need(0, 1.0)
    second = showing.show(1, 2.0)
    showing.snapshots.disconnected()
    showing.snapshots.connected(second, 300.0)
    assert showing.show(2, 301.0).slot == second.slot
    showing.need(0, 310.0)
    assert showing.show(3, 369.0).slot == second.slot
    assert showing.show(4, 371.0).slot == first.slot  # nobody has said for a minute that they read it


def test_a_slot_that_an_earlier_process_filled_is_kept_until_its_readers_had_time_to_say_so(tmp_path: Path) -> None:
    broker = MemoryBroker()
    before = Showing(broker, tmp_path)
    before.show(0, 0.0)
    second = before.show(1, 2.0)
    before.link.close()
    after = Showing(broker, tmp_path, shown=second)
    assert after.show(2, 1.0).slot == second.slot
    after.need(0, 50.0, 1)
    assert after.snapshots.deadline() is None  # it has not the bytes, and the broker has
    assert after.show(3, 100.0).slot == second.slot
    assert after.show(4, 111.0).slot != second.slot


def test_a_broker_that_has_lost_everything_gets_the_parts_again_in_the_same_slot(tmp_path: Path) -> None:
    broker = MemoryBroker()
    showing = Showing(broker, tmp_path)
    first = showing.show(0, 0.0)
    second = showing.show(1, 2.0)
    showing.need(0, 3.0)
    showing.snapshots.disconnected()
    broker.retained.clear()
    showing.snapshots.connected(None, 10.0)
    assert showing.snapshots.newest is None
    assert showing.show(1, 11.0).slot == second.slot
    topics = Topics("slow")
    assert all(topics.part(second.slot or 0, part) in broker.retained for part in range(3))
    showing.need(0, 12.0, 2)  # who still takes the one before asks for what does not come
    showing.snapshots.work(13.0)
    showing.link.poll(0.01)
    assert topics.part(first.slot or 0, 2) in broker.retained


def test_who_reads_what_broker_and_aggregator_have_lost_keeps_no_slot(tmp_path: Path) -> None:
    before = Showing(MemoryBroker(), tmp_path)
    slots = {before.show(version, float(version)).slot: version for version in range(2)}
    before.need(0, 2.0)
    before.link.close()
    after = Showing(MemoryBroker(), tmp_path)
    for version in range(2, 6):
        now = 10.0 * version
        place = after.show(version, now).slot
        assert place in slots
        assert slots.pop(place) == version - 2  # the older one is overwritten
        slots[place] = version
        after.need(0, now + 1.0, 1)
        after.need(1, now + 1.0, 1)


def test_what_was_lost_stays_lost_when_the_aggregator_is_restarted_once_more(tmp_path: Path) -> None:
    before = Showing(MemoryBroker(), tmp_path)
    before.show(0, 0.0)
    before.show(1, 1.0)
    before.link.close()
    broker = MemoryBroker()
    between = Showing(broker, tmp_path)
    shown = between.show(2, 2.0)
    between.link.close()
    after = Showing(broker, tmp_path, shown=shown)
    for version in range(2):
        after.need(version, 3.0, 1)
    assert after.show(3, 4.0).slot != shown.slot


def test_the_head_of_another_run_says_that_what_was_noted_is_gone(tmp_path: Path) -> None:
    before = Showing(MemoryBroker(), tmp_path)
    first, second = (before.show(version, float(version)) for version in range(2))
    before.link.close()
    after = Showing(MemoryBroker(), tmp_path, shown=second.model_copy(update={"run": "f" * 32}))
    after.need(0, 1.0, 1)
    assert after.show(2, 2.0).slot == first.slot


def test_what_is_newer_than_the_head_of_a_broker_that_fell_back_is_not_there_either(tmp_path: Path) -> None:
    broker = MemoryBroker()
    before = Showing(broker, tmp_path)
    first = before.show(0, 0.0)
    kept = dict(broker.retained)
    second = before.show(1, 1.0)
    before.link.close()
    broker.retained.clear()
    broker.retained.update(kept)
    after = Showing(broker, tmp_path, shown=first)
    after.need(1, 1.0, 1)
    assert after.show(1, 2.0).slot == second.slot  # and not over the one that the broker has


def test_a_slot_of_an_earlier_process_is_not_kept_longer_for_each_lost_connection(tmp_path: Path) -> None:
    broker = MemoryBroker()
    before = Showing(broker, tmp_path)
    first = before.show(0, 0.0)
    shown = before.show(1, 2.0)
    before.link.close()
    after = Showing(broker, tmp_path, shown=shown)
    for now in (1000.0, 2000.0, 3500.0):
        after.snapshots.disconnected()
        after.snapshots.connected(shown, now)
        after.need(0, now, 1)
    assert after.show(2, 3550.0).slot == shown.slot
    after.need(0, 3600.0, 1)
    assert after.show(3, 3610.0).slot == first.slot


def test_topics_that_may_hold_something_are_emptied_though_no_head_is_shown(tmp_path: Path) -> None:
    broker = MemoryBroker()
    before = Showing(broker, tmp_path)
    before.show(0, 0.0)
    before.show(1, 1.0)
    before.link.close()
    assert broker.retained
    for _ in range(2):
        after = Showing(broker, tmp_path)  # also when an earlier process has seen that none is shown
        after.link.close()
    after = Showing(broker, tmp_path)
    after.snapshots.clear()
    for _ in range(20):
        after.link.poll(0.01)
    assert not broker.retained


@pytest.mark.parametrize(("size", "seconds"), [(300_000, 3600.0), (60 << 20, 3840.0)])
def test_a_slot_is_kept_for_an_hour_or_as_long_as_16_kib_a_second_take(
    tmp_path: Path, size: int, seconds: float
) -> None:
    showing = Showing(MemoryBroker(), tmp_path, size)
    first = showing.show(0, 0.0)
    showing.need(0, seconds - 10)
    second = showing.show(1, seconds - 9)
    assert showing.show(2, seconds - 5).slot == second.slot
    showing.need(0, seconds)
    assert showing.show(3, seconds + 15).slot == first.slot
