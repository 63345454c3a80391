"""Lines of a log about one thing that happens again and again: nobody else must be able to fill the disk with them."""

from __future__ import annotations

from collections import Counter

from fedmq.aggregator.buckets import Buckets

__all__ = ["Sparing"]

_AT_ONCE = 20
_SECONDS = 10.0  # between two lines after that
_KEYS = 1024  # of which it is known how many lines were left out
_KEY = 100  # characters of a key that tell it from others; a topic may have 65,535
# Of all keys together: whoever makes up a new one for each line has twenty at once for each.
_IN_ALL_PER_SECOND, _IN_ALL_AT_ONCE = 5.0, 500.0


class Sparing:
    """Which lines are written: for each key so many at once, then one in `seconds`; and five a second in all."""

    def __init__(self, at_once: int = _AT_ONCE, seconds: float = _SECONDS) -> None:
        self._buckets = Buckets(1.0 / seconds, at_once)
        self._in_all = Buckets(_IN_ALL_PER_SECOND, _IN_ALL_AT_ONCE)
        self._left_out: Counter[str] = Counter()

    def line(self, key: str, now: float) -> str | None:
        """What the line ends with: how many were left out before this one, if any; None if this one is left out too."""
        key = key[:_KEY]
        if self._in_all.has("", now) and self._buckets.taken(key, now):
            self._in_all.take("", now)
            left_out = self._left_out.pop(key, 0)
            return f" left_out={left_out}" if left_out else ""
        if len(self._left_out) >= _KEYS:
            self._left_out.clear()
        self._left_out[key] += 1
        return None
