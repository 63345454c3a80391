"""Work in a thread of its own that ends with its owner, and whose error is raised where the owner is used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Background"]

T = TypeVar("T")


class Background(Generic[T]):
    """One function, run once in a thread.

    Args:
        name: of the thread.
        work: what to do.
        done: called in the thread at its end, whatever came of it.

    Attributes:
        result: what `work` returned; None until then, and if it raised.

    """

    def __init__(self, name: str, work: Callable[[], T], done: Callable[[], None] = lambda: None) -> None:
        self.result: T | None = None
        self._work = work
        self._done = done
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it has begun and not ended."""
        return self._thread.is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most `timeout` seconds."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def raise_failure(self) -> None:
        """Raise what `work` raised, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # raised again in the thread that owns this object
            self._failure = error
        self._done()
