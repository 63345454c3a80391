"""A fault of ours in the middle of an update: nothing of it counts, and nothing counts twice."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from fedmq.aggregator.buffer import step
from fedmq.aggregator.folding import add_scaled
from fedmq.aggregator.store import Commit
from tests.aggregator.test_judging import LAYOUT, Hall, hall

__all__ = ["hall"]


def fails_once(function: Callable[..., object]) -> Callable[..., object]:
    """Does what the function does; the first time, there is no memory after that."""
    calls: list[None] = []

    def failing(*arguments: object) -> object:
        result = function(*arguments)
        calls.append(None)
        if len(calls) == 1:
            raise MemoryError
        return result

    return failing


def test_an_update_that_fails_half_folded_is_rejected_and_nothing_of_it_stays(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmq.aggregator.buffer.add_scaled", fails_once(add_scaled))
    hall.send("alice", hall.offer("alice", 1.0))
    hall.until(lambda: hall.receipts.get("alice"))
    assert [receipt.reason for receipt in hall.receipts["alice"]] == ["internal"]
    assert not hall.core.state.buffer.total.any()
    hall.rest()
    hall.offer("alice", 1.0)
    hall.until(lambda: len(hall.receipts["alice"]) == 2)
    assert hall.receipts["alice"][1].reason == "internal"  # for ever
    assert hall.core.state.rejected == {"internal": 1}
    hall.rest()
    hall.send("bob", hall.offer("bob", 3.0))
    hall.until(lambda: hall.receipts.get("bob"))
    assert hall.receipts["bob"][0].verdict == "accepted"
    assert hall.core.state.buffer.total.tolist() == [3.0] * LAYOUT.size


def test_a_version_that_fails_after_its_step_does_not_count_its_updates_twice(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.send("alice", hall.offer("alice", 1.0))
    hall.until(lambda: hall.receipts.get("alice"))
    monkeypatch.setattr("fedmq.aggregator.core.step", fails_once(step))
    hall.rest()
    hall.send("bob", hall.offer("bob", 3.0))
    hall.until(lambda: hall.receipts.get("bob"))
    assert hall.receipts["bob"][0].reason == "internal"
    assert (hall.core.state.version, len(hall.core.state.buffer.updates)) == (0, 1)
    hall.rest()
    hall.clients["carl"] = hall.broker.link("carl")
    hall.clients["carl"].open()
    hall.send("carl", hall.offer("carl", 5.0))
    hall.until(lambda: hall.shown() == 1)
    assert hall.core.state.weights.tolist() == [3.0] * LAYOUT.size  # of alice's 1 and carl's 5


def test_what_was_being_committed_when_judging_failed_is_told(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, writing, write = threading.Event(), threading.Event(), hall.store.write

    def slowly(commit: Commit) -> None:
        writing.set()
        assert goes_on.wait(20)
        write(commit)

    monkeypatch.setattr("fedmq.aggregator.writer.LARGE_BYTES", 1 << 30)  # its buffer is copied
    monkeypatch.setattr(hall.store, "write", slowly)
    hall.send("alice", hall.offer("alice", 1.0))
    hall.until(writing.is_set)
    monkeypatch.setattr("fedmq.aggregator.buffer.add_scaled", fails_once(add_scaled))
    hall.send("bob", hall.offer("bob", 3.0))
    hall.pass_time(0.5)
    assert not any(hall.receipts.values())
    goes_on.set()
    hall.until(lambda: hall.receipts.get("alice") and hall.receipts.get("bob"))
    assert hall.receipts["alice"][0].verdict == "accepted"
    assert hall.receipts["bob"][0].reason == "internal"
    assert hall.core.state.buffer.total.tolist() == [1.0] * LAYOUT.size
