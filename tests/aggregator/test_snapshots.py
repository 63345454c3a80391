"""Snapshots in parts: a disk that is full or fails costs memory or time, and nothing else."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from fedmq.aggregator.snapshots import Kept
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
        hall.send(name, hall.offer(name, 1.0))
        hall.until(lambda name=name: hall.receipts.get(name))  # type: ignore[misc]


def test_a_note_of_the_slots_that_a_full_disk_does_not_take_is_left_out(hall: Hall, tmp_path: Path) -> None:
    noted = tmp_path / "parts" / "slots.json"
    noted.unlink()
    noted.symlink_to("/dev/full")
    make_a_version(hall)
    hall.until(lambda: hall.shown() == 1)
    noted.unlink()


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
