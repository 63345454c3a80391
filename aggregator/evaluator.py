"""The aggregator's own evaluation, beside the loop: receiving updates never waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Metrics

__all__ = ["Evaluate", "Evaluator", "ThreadEvaluator"]

Evaluate = Callable[[Vector], Metrics]
"""Weights in, float32 [layout.size]; metrics out."""


class Evaluator(Protocol):
    """One evaluation at a time."""

    @property
    def idle(self) -> bool:
        """Whether it can take another."""

    def start(self, version: int, weights: Vector) -> None:
        """Begin to evaluate a version; nobody may change the weights."""

    def take(self) -> tuple[int, Metrics | Exception] | None:
        """Which version, and what came of it; once. None while there is nothing."""


class ThreadEvaluator:
    """Each evaluation in a thread of its own.

    Args:
        evaluate: what to do; whatever it raises is reported.
        done: called in that thread at the end, to wake the service.

    """

    def __init__(self, evaluate: Evaluate, done: Callable[[], None]) -> None:
        self._evaluate = evaluate
        self._done = done
        self._thread: threading.Thread | None = None
        self._results: deque[tuple[int, Metrics | Exception]] = deque()

    @property
    def idle(self) -> bool:
        """Whether it can take another."""
        return self._thread is None or not self._thread.is_alive()

    def start(self, version: int, weights: Vector) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, args=(version, weights), name="fedmq-evaluation", daemon=True)
        self._thread.start()

    def take(self) -> tuple[int, Metrics | Exception] | None:
        """What came of it."""
        return self._results.popleft() if self._results else None

    def join(self, timeout: float) -> None:
        """Wait for the evaluation that runs."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self, version: int, weights: Vector) -> None:
        try:
            result: Metrics | Exception = self._evaluate(weights)
        except Exception as error:  # the task is the user's: whatever it raises is reported
            result = error
        except BaseException as error:  # an exit too: in a thread nobody would hear of it
            result = RuntimeError(f"it raised {error!r}")
            result.__cause__ = error
        self._results.append((version, result))
        self._done()
