"""A clock that moves only from one scheduled thing to the next: a year of training passes in a second."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

__all__ = ["VirtualTime"]


class VirtualTime:
    """What is to happen, in order of time; things of one instant in the order in which they were scheduled.

    Attributes:
        now: seconds since the start.

    """

    def __init__(self) -> None:
        self.now = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Have `action` called at `time`, or now if that has passed."""
        heapq.heappush(self._agenda, (max(time, self.now), next(self._order), action))

    def step(self, until: float) -> bool:
        """Do the next thing if it is due by `until`; else move the clock there. Whether something was done."""
        if not self._agenda or self._agenda[0][0] > until:
            self.now = max(self.now, until)
            return False
        self.now, _, action = heapq.heappop(self._agenda)
        action()
        return True
