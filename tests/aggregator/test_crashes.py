"""A crash at any instant of a commit leaves the old state or the new one, never a mixture."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.aggregator.tables import Tables
from fedmq.schemas.errors import StoreError
from tests.aggregator.small_run import SmallRun, layout_of, plain_fedbuff
from tests.aggregator.test_store import commit, everything_of

SIZE = 50_000


def reopened(folder: Path, size: int) -> State:
    store = Store(folder, "kitchen")
    state = store.load(layout_of(size))
    store.close()
    assert state is not None
    return state


def fails(error: Exception) -> Any:
    def instead(*arguments: Any, **named: Any) -> Any:
        raise error

    return instead


@pytest.mark.parametrize(
    ("where", "what", "error"),
    [
        (os, "fsync", OSError(28, "No space left on device")),
        (os, "replace", OSError(5, "Input/output error")),
        (Tables, "transaction", sqlite3.OperationalError("disk I/O error")),
        (Tables, "write", sqlite3.OperationalError("database or disk is full")),
    ],
    ids=["syncing the vectors", "renaming them", "beginning the transaction", "its rows"],
)
def test_a_commit_that_fails_anywhere_is_a_store_error_and_the_old_state_is_what_is_loaded(
    where: Any, what: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SmallRun(plain_fedbuff(2))
    store = Store(tmp_path, "kitchen")
    run.deliver("alice", 1.0)
    commit(store, run)
    before = everything_of(run.state)
    before_history = list(store.history())

    run.deliver("bob", 1.0)  # a version
    with monkeypatch.context() as broken:
        broken.setattr(where, what, fails(error))
        with pytest.raises(StoreError, match=r"the commit failed: .*; is the disk full\?") as failure:
            commit(store, run)
    assert failure.value.__cause__ is error
    assert list(store.history()) == before_history
    store.close()
    assert everything_of(reopened(tmp_path, 1)) == before


def test_after_a_failed_commit_the_old_state_is_loaded_and_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SmallRun(plain_fedbuff(2))
    store = Store(tmp_path, "kitchen")
    run.deliver("alice", 1.0)
    commit(store, run)
    run.deliver("bob", 1.0)
    with monkeypatch.context() as broken:
        broken.setattr(Tables, "write", fails(sqlite3.OperationalError("disk I/O error")))
        with pytest.raises(StoreError):
            commit(store, run)
    store.close()

    again = SmallRun(plain_fedbuff(2))
    again.core.state = reopened(tmp_path, 1)
    again.deliver("bob", 3.0)  # other bytes: what was forgotten was never judged
    store = Store(tmp_path, "kitchen")
    store.load(again.layout)
    commit(store, again)
    store.close()
    state = reopened(tmp_path, 1)
    assert (state.version, state.accepted, state.weights.tolist()) == (1, 2, [2.0])


WORKER = f"""
import sys
from pathlib import Path
from fedmq.aggregator.store import Store
from tests.aggregator.small_run import SmallRun, plain_fedbuff
from tests.aggregator.test_store import commit

run = SmallRun(plain_fedbuff(2), [0.0] * {SIZE})
store = Store(Path(sys.argv[1]), "kitchen")
state = store.load(run.layout)
if state is not None:
    run.core.state = state
while True:
    run.deliver("alice", *[1.0] * {SIZE}, sequence=run.state.accepted)
    commit(store, run)
    print(run.state.accepted, flush=True)
"""


def test_a_kill_at_any_instant_leaves_one_of_the_committed_states(tmp_path: Path) -> None:
    shown = 0
    for commits in (1, 4, 2):  # killed so many commits after it began, somewhere in the next one, and started again
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert worker.stdout is not None
        try:
            for _ in range(commits):
                shown = int(worker.stdout.readline())
        finally:
            worker.send_signal(signal.SIGKILL)
            last = worker.stdout.read().split()
            worker.stdout.close()
            worker.wait()
        shown = int(last[-1]) if last else shown

        state = reopened(tmp_path, SIZE)
        # What was shown is there; at most the commit that it was killed in is there too.
        assert state.accepted in (shown, shown + 1)
        versions, buffered = divmod(state.accepted, 2)
        assert state.version == versions
        assert state.weights.tolist() == [float(versions)] * SIZE
        assert state.buffer.total.tolist() == [float(buffered)] * SIZE
        assert len(state.buffer.updates) == buffered
        verdicts = state.ledger.outboxes("alice")[0].verdicts
        assert sorted(verdicts) == list(range(state.accepted))
