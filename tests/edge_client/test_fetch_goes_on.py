"""A model in parts goes on where an earlier process left it, and the link is served while that is looked through."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fedmq.edge_client.fetch import Fetch
from fedmq.schemas.messages import Head, SnapshotPart
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.transport.link import Message
from fedmq.transport.memory import MemoryBroker
from fedmq.transport.spool import FileSpool
from tests.aggregator.small_run import RUN, layout_of

PART, PARTS = 1 << 20, 9
BODY = os.urandom(PART) * PARTS
TOPICS = Topics("slow")
HEAD = Head(
    run=RUN,
    version=1,
    plan=Plan(),
    layout=layout_of(1).digest,
    codec="float32",
    size=len(BODY),
    digest=hashlib.sha256(BODY).hexdigest(),
    slot=0,
    part_bytes=PART,
)


class Device:
    """One process of a device, whose broker has some of the parts."""

    def __init__(self, folder: Path, parts: range) -> None:
        broker = MemoryBroker()
        shows, self.link = broker.link("aggregator"), broker.link("ada")
        for link in (shows, self.link):
            link.open()
        for part in parts:
            payload = encode(SnapshotPart(run=RUN, version=1), BODY[part * PART : (part + 1) * PART])
            shows.publish(TOPICS.part(0, part), payload, retain=True)
        self.fetch = Fetch(self.link, TOPICS, "ada", folder / "model", 4)
        self.came = 0
        self.found = False

    def pass_time(self, now: float) -> None:
        while isinstance(event := self.link.poll(0.01), Message):
            self.came += self.fetch.take(event.topic, event.payload, now)
        self.found = self.fetch.tick(now) or self.found


def took(folder: Path, parts: int) -> None:
    """A process that took so many parts, and ended."""
    device = Device(folder, range(parts))
    device.fetch.want(HEAD, len(BODY), 0.0)
    for _ in range(PARTS):
        device.pass_time(0.0)
    assert device.came == parts
    device.fetch.close()


def test_the_link_is_served_while_what_is_here_is_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took(tmp_path, PARTS - 1)
    goes_on, is_there = threading.Event(), FileSpool._is_there

    def slowly(spool: FileSpool, part: Any) -> bool:
        assert goes_on.wait(20)
        return is_there(spool, part)

    monkeypatch.setattr(FileSpool, "_is_there", slowly)
    after = Device(tmp_path, range(PARTS))
    after.fetch.want(HEAD, len(BODY), 0.0)
    for now in range(60):
        after.pass_time(now)
        assert after.fetch.deadline() == pytest.approx(now + 0.1)
    assert (after.came, after.fetch.ready()) == (0, None)
    goes_on.set()
    deadline = time.monotonic() + 20
    while after.fetch.ready() is None:
        after.pass_time(61.0)
        assert time.monotonic() < deadline
    assert (after.came, after.fetch.digest()) == (1, HEAD.digest)
    after.fetch.close()


def test_what_an_earlier_process_has_taken_as_a_whole_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    took(tmp_path, PARTS)
    wanted, is_there = threading.Event(), FileSpool._is_there

    def later(spool: FileSpool, part: Any) -> bool:
        assert wanted.wait(20)
        return is_there(spool, part)

    monkeypatch.setattr(FileSpool, "_is_there", later)
    after = Device(tmp_path, range(0))
    after.fetch.want(HEAD, len(BODY), 0.0)
    wanted.set()  # what has been read before `want` returns is ready then, and not found by `tick`
    deadline, now = time.monotonic() + 20, 1.0
    while not after.found:  # it looks ten times a second whether what is here has been read
        after.pass_time(now)
        now += 0.1
        assert time.monotonic() < deadline
    ready = after.fetch.ready()
    assert ready is not None
    assert ready[1] == BODY
    after.fetch.close()


def test_who_turns_to_another_model_meanwhile_leaves_its_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took(tmp_path, PARTS - 1)
    looked, goes_on, is_there = [], threading.Event(), FileSpool._is_there

    def slowly(spool: FileSpool, part: Any) -> bool:
        looked.append(part)
        assert goes_on.wait(20)
        return is_there(spool, part)

    monkeypatch.setattr(FileSpool, "_is_there", slowly)
    after = Device(tmp_path, range(PARTS))
    after.fetch.want(HEAD, len(BODY), 0.0)
    threading.Timer(0.2, goes_on.set).start()
    after.fetch.want(HEAD.model_copy(update={"run": "f" * 32}), len(BODY), 0.0)
    assert len(looked) <= 1  # it has stopped when the other begins
    assert after.fetch._download is not None
    assert after.fetch._download.listening == {0, 1}
    after.fetch.close()
