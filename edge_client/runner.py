"""Runs training jobs beside the connection, so that pings go on while a device trains."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from fedmq.edge_client.job import Made

__all__ = ["Job", "Runner", "ThreadRunner"]

Job = Callable[[], Made]


class Runner(Protocol):
    """One job at a time."""

    def start(self, job: Job) -> None:
        """Begin; the one before must have been taken."""

    def take(self) -> Made | Exception | None:
        """What the job returned or raised, once; None while it runs or if there is none."""


class ThreadRunner:
    """Each job in a thread of its own.

    Args:
        done: called in that thread when a job is done, to wake the service.
        pace: seconds that a job lasts at least, by waiting: a slow device, simulated. 0 is off.

    """

    def __init__(self, done: Callable[[], None], pace: float = 0.0) -> None:
        self._done = done
        self._pace = pace
        self._results: deque[Made | Exception] = deque()
        self._stopped = threading.Event()

    def start(self, job: Job) -> None:
        """Begin."""
        # A daemon: a device that is told to stop does not wait for its training.
        threading.Thread(target=self._run, args=(job,), name="fedmq-training", daemon=True).start()

    def take(self) -> Made | Exception | None:
        """What came of it."""
        return self._results.popleft() if self._results else None

    def stop(self) -> None:
        """No job waits any longer for its pace."""
        self._stopped.set()

    def _run(self, job: Job) -> None:
        begun = time.monotonic()
        try:
            result: Made | Exception = job()
        except Exception as error:  # the task is the user's: whatever it raises is reported
            result = error
        except BaseException as error:  # also sys.exit(): the device would wait for this job for ever
            result = RuntimeError(f"it raised {error!r}")
            result.__cause__ = error
        self._stopped.wait(max(0.0, self._pace - (time.monotonic() - begun)))
        self._results.append(result)
        self._done()
