"""Work with a large model that goes on in a thread: a broker cuts a connection that does nothing for a few seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["LARGE_BYTES", "Aside"]

LARGE_BYTES = 32 << 20
"""Of a model; a smaller one is done with between two messages, and may lie in memory a few times more."""

T = TypeVar("T")


class Aside(Generic[T]):
    """One piece of work at a time.

    Args:
        name: of the thread.
        done: called in it at the end, to wake the service.

    Attributes:
        busy: it works, or what came of it has not been taken.

    """

    def __init__(self, name: str, done: Callable[[], None]) -> None:
        self._name = name
        self._done = done
        self.busy = False
        self._thread: threading.Thread | None = None
        self._result: list[T | Exception] = []

    @property
    def ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._result)

    def start(self, work: Callable[[], T]) -> None:
        """Begin; what came of the work before must have been taken."""
        assert not self.busy
        # A daemon: a process that is told to stop does not wait for it.
        self._thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True)
        self.busy = True
        self._thread.start()

    def take(self, timeout: float = 0.0) -> T | Exception | None:
        """What came of it, or what it raised, once; None if that takes more than `timeout` seconds."""
        if self._thread is None:
            return None
        if not self._result:
            self._thread.join(timeout)
        if not self._result:
            return None
        self._thread.join()  # in a moment; it has let go of what it worked with then
        self._thread, self.busy = None, False
        return self._result.pop()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            result: T | Exception = work()
        except Exception as error:  # whoever takes it knows what that means
            result = error
        self._result.append(result)
        self._done()
