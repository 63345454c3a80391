"""When a broker that ended by itself is started again: after longer and longer, and not for ever."""

from __future__ import annotations

__all__ = ["MOST_ENDS", "SOON_SECONDS", "Restarts"]

MOST_ENDS = 5
"""So many ends in a row, each soon after a start, are more than chance."""
SOON_SECONDS = 60.0
"""What works for longer has started well."""
_FIRST_SECONDS = 1.0


class Restarts:
    """Counts ends. Times are seconds of any clock that goes on evenly; the first start is at `now`."""

    def __init__(self, now: float) -> None:
        self._started: float | None = now
        self._ends = 0

    def started(self, now: float) -> None:
        """It was started again."""
        self._started = now

    def ended(self, now: float) -> float | None:
        """It has ended, or could not be started; seconds until the next start, doubled each time, None for never."""
        soon = self._started is None or now - self._started <= SOON_SECONDS
        self._started = None
        self._ends = self._ends + 1 if soon else 1
        return None if self._ends >= MOST_ENDS else _FIRST_SECONDS * 2.0 ** (self._ends - 1)
