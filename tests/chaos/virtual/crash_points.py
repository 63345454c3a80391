"""Crashes between two lines: a service calls its `step` there, and the armed one raises."""

from __future__ import annotations

from collections import Counter

__all__ = ["Crash", "CrashPoints"]


class Crash(BaseException):
    """The process is dead; nothing may catch this but who drops its objects."""


class CrashPoints:
    """Where one process is to crash next.

    Args:
        seen: counts the points at which it did.

    """

    def __init__(self, seen: Counter[str]) -> None:
        self._seen = seen
        self._armed: dict[str, int] = {}

    def arm(self, point: str, passings: int) -> None:
        """Crash at the n-th passing of this point from now on."""
        self._armed[point] = passings

    def disarm(self) -> None:
        """Crash nowhere."""
        self._armed.clear()

    def step(self, point: str) -> None:
        """A service passes a point."""
        left = self._armed.get(point)
        if left is None:
            return
        if left > 1:
            self._armed[point] = left - 1
            return
        del self._armed[point]
        self._seen[point] += 1
        raise Crash(point)
