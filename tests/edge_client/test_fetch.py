"""Models in parts, a device's side: what a slot shows is checked like what the model's topic shows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fedmq.edge_client.fetch import Fetch
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import Head, SnapshotPart
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.transport.memory import MemoryBroker
from tests.edge_client.words import RUN

TOPICS = Topics("f")
PART = 4096
WEIGHTS = bytes(2 * PART)


def head(version: int, size: int = len(WEIGHTS), slot: int = 0, part_bytes: int = PART) -> Head:
    return Head(
        run=RUN,
        version=version,
        plan=Plan(),
        layout="0" * 64,
        codec="float32",
        size=size,
        digest=hashlib.sha256(WEIGHTS).hexdigest(),
        slot=slot,
        part_bytes=part_bytes,
    )


@pytest.mark.parametrize("drained", [False, True])
def test_a_size_that_no_model_of_this_device_has_is_refused_in_a_slot_too(drained: bool) -> None:
    link = MemoryBroker().link("dev-1")
    link.open()
    fetch = Fetch(link, TOPICS, "dev-1", None, 8)
    fetch.want(head(1), len(WEIGHTS), 0.0)
    fetch.take(TOPICS.part(0, 0), encode(SnapshotPart(run=RUN, version=2), WEIGHTS[:PART]), 0.0)  # it is overwritten
    if drained:
        fetch.take(TOPICS.slot(0), encode(head(2)), 0.0)
    with pytest.raises(ProtocolError, match=f"{1 << 62} bytes in slot 0, expected {len(WEIGHTS)} at most"):
        fetch.take(TOPICS.slot(0), encode(head(2, size=1 << 62)), 0.0)
    fetch.take(TOPICS.slot(0), encode(head(2)), 0.0)
    fetch.take(TOPICS.slot(0), encode(head(2)), 0.0)
    for part in range(2):
        fetch.take(TOPICS.part(0, part), encode(SnapshotPart(run=RUN, version=2), WEIGHTS[:PART]), 0.0)
    ready = fetch.ready()
    assert ready is not None
    assert (ready[0].version, bytes(ready[1])) == (2, WEIGHTS)


@pytest.mark.parametrize(("slot", "part_bytes"), [(1, PART), (0, PART // 2), (1, PART // 2)])
def test_the_same_that_lies_elsewhere_now_is_taken_from_there_and_what_is_here_stays(
    tmp_path: Path, slot: int, part_bytes: int
) -> None:
    broker = MemoryBroker()
    link = broker.link("dev-1")
    link.open()
    fetch = Fetch(link, TOPICS, "dev-1", tmp_path / "model", 8)
    fetch.want(head(1), len(WEIGHTS), 0.0)
    payload = encode(SnapshotPart(run=RUN, version=1), WEIGHTS[:PART])
    fetch.take(TOPICS.part(0, 0), payload, 0.0)
    assert fetch.is_of(head(1))
    there = head(1, slot=slot, part_bytes=part_bytes)
    assert not fetch.is_of(there)
    fetch.want(there, len(WEIGHTS), 1.0)
    assert fetch.is_of(there)
    assert fetch.receiving() == (1, PART, len(WEIGHTS))
    for part in range(PART // part_bytes, len(WEIGHTS) // part_bytes):
        payload = encode(SnapshotPart(run=RUN, version=1), WEIGHTS[:part_bytes])
        fetch.take(TOPICS.part(slot, part), payload, 1.0)
    ready = fetch.ready()
    assert ready is not None
    assert ready[0] == there
    assert ready[1] == WEIGHTS
    assert fetch.is_of(head(1))  # what is whole is not taken again from anywhere
    fetch.close()


def test_a_newer_one_elsewhere_does_not_interrupt() -> None:
    link = MemoryBroker().link("dev-1")
    link.open()
    fetch = Fetch(link, TOPICS, "dev-1", None, 8)
    fetch.want(head(1), len(WEIGHTS), 0.0)
    fetch.want(head(2, slot=1), len(WEIGHTS), 1.0)
    assert fetch.is_of(head(1))
