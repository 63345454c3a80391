"""Lines of a log about one thing that happens again and again: a stranger must not fill the disk with them."""

from __future__ import annotations

from collections import Counter

from fedmq.aggregator.buckets import Buckets

__all__ = ["Sparing"]

_AT_ONCE = 20
_SECONDS = 10.0  # between two lines after that
_KEYS = 1024  # of which it is known how many lines were left out


class Sparing:
    """Which lines are written: for each key so many at once, then one in ten seconds."""

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._buckets = Buckets(1.0 / _SECONDS, at_once)
        self._left_out: Counter[str] = Counter()

    def line(self, key: str, now: float) -> int | None:
        """How many were left out before this one; None if this one is left out too."""
        if self._buckets.taken(key, now):
            return self._left_out.pop(key, 0)
        if len(self._left_out) >= _KEYS:
            self._left_out.clear()
        self._left_out[key] += 1
        return None
