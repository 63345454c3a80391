"""Carries commits out: at once if they are small, in a thread of its own if they could hold up the reading."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fedmq.aggregator.aside import LARGE_BYTES
from fedmq.aggregator.state import News, State
from fedmq.aggregator.store import Commit, Store
from fedmq.schemas.layout import Vector

__all__ = ["Writer"]

_AT_ONCE_BYTES = 16 << 20  # of a state: a card that writes 10 MB a second has that in less than two seconds


class Writer:
    """One commit at a time.

    Args:
        store: where to; None keeps nothing, for the sandbox.
        done: called in the thread when a commit has ended there, to wake the service.

    Attributes:
        lasted: seconds that the last commit took.

    """

    def __init__(self, store: Store | None, done: Callable[[], None], clock: Callable[[], float] = time.monotonic):
        self.lasted = 0.0
        self._held: Vector | None = None
        self._store = store
        self._done = done
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether a commit goes on in the thread, or its end has not been taken."""
        return self._thread is not None

    @property
    def holds(self) -> bool:
        """Whether the thread writes the buffer's own memory, which is read-only until `take` has its end."""
        return self._held is not None

    def writes_at_once(self, state: State) -> bool:
        """Whether `begin` carries out a commit of this state itself."""
        vectors = state.weights.nbytes * (2 if state.velocity is None else 3)
        return self._store is None or vectors <= _AT_ONCE_BYTES

    def begin(self, state: State, news: News) -> bool:
        """Commit this; whether it is done already. If not, `take` will say, and until then `holds` may forbid to fold.

        Raises:
            StoreError: nothing was committed.

        """
        if self._store is None:
            return True
        at_once = self.writes_at_once(state)
        holds = state.weights.nbytes > LARGE_BYTES  # a copy would cost too much memory
        commit = self._store.take(state, news, copy_buffer=not at_once and not holds)
        if at_once:
            self._write(self._store, commit)
            self._raise()
            return True
        if holds:
            # Whoever made a version where these sums lie would have the model written in their place.
            self._held = state.buffer.total
            self._held.setflags(write=False)
        # A disk that hangs must not keep a process alive that was told to stop.
        self._thread = threading.Thread(
            target=self._in_thread, args=(self._store, commit), name="fedmq-commit", daemon=True
        )
        self._thread.start()
        return False

    def take(self, timeout: float | None) -> bool:
        """Whether the commit in the thread is done within `timeout` seconds, at last if None; then it is busy no more.

        Raises:
            StoreError: it failed.

        """
        thread = self._thread
        if thread is None:
            return False
        thread.join(timeout)
        if thread.is_alive():
            return False
        self._thread = None
        if self._held is not None:
            self._held.setflags(write=True)
            self._held = None
        self._raise()
        return True

    def _in_thread(self, store: Store, commit: Commit) -> None:
        self._write(store, commit)
        self._done()

    def _write(self, store: Store, commit: Commit) -> None:
        begun = self._clock()
        try:
            store.write(commit)
        except BaseException as error:  # raised again where the service takes the end
            self._failure = error
        self.lasted = self._clock() - begun

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
