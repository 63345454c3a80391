"""Which parts of a snapshot are published again for those who miss them, and how often.

What is published under a retained topic goes to everybody who waits for that part, also over links that are paid by the
byte. So it is repeated seldom, however many ask and however often.
"""

from __future__ import annotations

__all__ = ["Missed"]

_PAUSE_SECONDS = 2.0  # after a part was published again, until it may be once more; doubled each time
_LONGEST_PAUSE_SECONDS = 120.0  # as a device asks: a part that still does not come is lost behind the broker


class Missed:
    """The parts of one snapshot that somebody misses."""

    def __init__(self) -> None:
        self._waiting: dict[int, None] = {}  # the first asked for first
        self._pauses: dict[int, tuple[float, float]] = {}  # of each: how long, and until when

    def __bool__(self) -> bool:
        """Whether any waits to be published again."""
        return bool(self._waiting)

    def would_take(self, part: int, now: float) -> bool:
        """Whether asking for this one changes anything: it does not wait yet, and was not published just now."""
        return part not in self._waiting and now >= self._pauses.get(part, (0.0, now))[1]

    def add(self, part: int) -> None:
        """Have this one published again."""
        self._waiting[part] = None

    def take(self, now: float) -> int | None:
        """The one to publish now; None if none waits."""
        part = next(iter(self._waiting), None)
        if part is not None:
            del self._waiting[part]
            pause, _ = self._pauses.get(part, (_PAUSE_SECONDS / 2, now))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self._pauses[part] = pause, now + pause
        return part
