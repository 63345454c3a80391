"""While a thread writes the buffer where it lies, nothing makes a version of it: no time, no goal, nobody who goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedmq.aggregator import writer
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import Strategy, fedavg, fedbuff
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import ClientStatus
from fedmq.schemas.wire import encode
from fedmq.transport.link import Message
from tests.aggregator.small_run import offer_of
from tests.aggregator.test_commits import LAYOUT, RULES, TOPICS, Kitchen

ROUND = fedavg(clients=2, deadline=30.0)


@pytest.fixture(autouse=True)
def as_of_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_AT_ONCE_BYTES", -1)
    monkeypatch.setattr(writer, "LARGE_BYTES", -1)


class Held(Kitchen):
    """An aggregator whose disk hangs in a commit with one update in the buffer."""

    strategy: Strategy

    @classmethod
    def begun(cls, folder: Path, strategy: Strategy) -> Held:
        held = type("HeldBy", (cls,), {"strategy": strategy})
        run: Held = held(folder)
        if strategy.cohort:
            run.status("alice", online=True)
            run.status("bob", online=True)
            run.pass_time(1.0)
        else:
            for sequence in range(6):  # so that it is known how fast they come
                run.offer(sequence)
                run.until(lambda sequence=sequence: sequence in run.receipts)  # type: ignore[misc]
        run.disk.free.clear()
        run.disk.waits.clear()
        offer, body = offer_of(np.ones(4, np.float32), LAYOUT, sequence=6, base_version=run.service._core.state.version)
        run.service.handle(Message(TOPICS.update("alice"), encode(offer, body)))
        while not run.service._commits.holds:
            run.pass_time(0.05)
        assert run.disk.waits.wait(20)
        assert len(run.state.buffer.updates) == 1
        return run

    def core(self, state: State) -> AggregatorCore:
        return AggregatorCore(state, self.strategy, RULES, Goal())

    @property
    def state(self) -> State:
        return self.service._core.state

    def status(self, client_id: str, *, online: bool) -> None:
        said = ClientStatus(state="online" if online else "offline", client_id=client_id, incarnation="c" * 32)
        self.service.handle(Message(TOPICS.status(client_id), encode(said)))

    def written(self, folder: Path) -> Vector:
        """What the buffer's sums are after the commit and a kill."""
        self.disk.free.set()
        thread = self.service._commits._writer._thread
        assert thread is not None
        thread.join(20)
        self.store.close()
        store = Store(folder, "kitchen")
        state = store.load(LAYOUT)
        store.close()
        assert state is not None
        assert len(state.buffer.updates) == 1
        return state.buffer.total


def in_time(run: Held) -> None:
    due = run.service._core.deadline()
    assert due is not None
    run.pass_time(due - run.service.now() + 1.0)


def the_run_is_over(run: Held) -> None:
    run.service._core.goal = Goal(seconds=run.service.now() + 30.0)
    run.pass_time(60.0)


def whoever_is_missing_goes(run: Held) -> None:
    run.status("bob", online=False)
    run.pass_time(5.0)


@pytest.mark.parametrize(
    ("strategy", "happens"),
    [
        (fedbuff(buffer_size=2), in_time),
        (fedbuff(buffer_size=2, flush_timer=False), the_run_is_over),
        (ROUND, in_time),
        (ROUND, whoever_is_missing_goes),
    ],
    ids=["flush timer", "goal", "a round's deadline", "who a round waits for"],
)
def test_what_is_written_is_what_was_committed(
    tmp_path: Path, strategy: Strategy, happens: Callable[[Held], None]
) -> None:
    run = Held.begun(tmp_path, strategy)
    version, total = run.state.version, run.state.buffer.total.copy()
    happens(run)
    assert run.state.version == version
    deadline = run.service.deadline()
    assert deadline is None or deadline > run.service.now()  # else it would spin until the disk goes on
    np.testing.assert_array_equal(run.written(tmp_path), total)


@pytest.mark.parametrize("happens", [in_time, whoever_is_missing_goes], ids=["deadline", "gone"])
def test_what_was_due_meanwhile_is_done_when_the_disk_goes_on(tmp_path: Path, happens: Callable[[Held], None]) -> None:
    run = Held.begun(tmp_path, ROUND)
    version = run.state.version
    happens(run)
    run.disk.free.set()
    run.until(lambda: run.service.committed == version + 1)
    run.close()


def test_the_buffer_is_read_only_until_the_commit_is_done(tmp_path: Path) -> None:
    run = Held.begun(tmp_path, fedbuff(buffer_size=3, flush_timer=False))
    total = run.state.buffer.total
    with pytest.raises(ValueError, match="read-only"):
        total += 1
    run.disk.free.set()
    run.until(lambda: not run.service._commits.busy)
    assert total.flags.writeable
    run.close()
