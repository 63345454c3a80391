from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from fedmq.edge_client.ahead import Ahead
from fedmq.edge_client.job import Made
from fedmq.edge_client.runner import ThreadRunner
from fedmq.edge_client.training import Outcome

MADE = Made(Outcome(np.zeros(1, np.float32), 1, {}), "float32", 4, "0" * 64, Ahead("", 0, 1))


def test_a_job_runs_beside_its_owner_and_its_result_is_taken_once() -> None:
    done, go = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def job() -> Made:
        threads.append(threading.current_thread())
        assert go.wait(10)
        return MADE

    runner = ThreadRunner(done.set)
    runner.start(job)
    assert runner.take() is None, "it still runs"
    go.set()
    assert done.wait(10)
    assert runner.take() is MADE
    assert runner.take() is None
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon, "a device that stops does not wait for its training"


def test_what_a_job_raises_is_its_result() -> None:
    done = threading.Event()
    error = RuntimeError("the camera is gone")

    def job() -> Made:
        raise error

    runner = ThreadRunner(done.set)
    runner.start(job)
    assert done.wait(10)
    assert runner.take() is error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_is_no_exception_is_a_result_too_and_named(error: BaseException) -> None:
    done = threading.Event()

    def job() -> Made:
        raise error

    runner = ThreadRunner(done.set)
    runner.start(job)
    assert done.wait(10)
    result = runner.take()
    assert isinstance(result, RuntimeError)
    assert str(result) == f"it raised {error!r}"
    assert result.__cause__ is error


def test_with_a_pace_a_job_lasts_at_least_so_long() -> None:
    done = threading.Event()
    runner = ThreadRunner(done.set, pace=0.2)
    begun = time.monotonic()
    runner.start(lambda: MADE)
    assert done.wait(10)
    assert time.monotonic() - begun >= 0.2
    assert runner.take() is MADE


def test_a_runner_that_is_stopped_waits_for_no_pace() -> None:
    done = threading.Event()
    runner = ThreadRunner(done.set, pace=3600.0)
    runner.start(lambda: MADE)
    runner.stop()
    assert done.wait(10)
