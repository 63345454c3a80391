"""How often something may happen, for each of many keys: token buckets."""

from __future__ import annotations

__all__ = ["Buckets"]

_FEW = 1024  # buckets that are never looked through for full ones


class Buckets:
    """A bucket of tokens for each key, full at first. A full one takes no memory for long.

    Args:
        per_second: tokens that each gains, up to `burst`.
        burst: what a full one has.

    """

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left: dict[str, tuple[float, float]] = {}  # tokens, and when there were so many
        self._look_at = _FEW

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._left)

    def left(self, key: str, now: float) -> float:
        """Tokens in this bucket; below 0 if more was taken than there was."""
        known = self._left.get(key)
        if known is None:
            return self._burst
        return min(self._burst, known[0] + max(0.0, now - known[1]) * self._per_second)

    def has(self, key: str, now: float) -> bool:
        """Whether there is a whole token."""
        return key not in self._left or self.left(key, now) >= 1.0

    def seconds(self, key: str, now: float) -> float:
        """Until there is a whole token; 0 if there is."""
        return max(0.0, (1.0 - self.left(key, now)) / self._per_second)

    def take(self, key: str, now: float, tokens: float = 1.0) -> None:
        """Take a token, or so many, whether there are as many or not."""
        self._left[key] = self.left(key, now) - tokens, now
        if len(self._left) > self._look_at:
            for full in [key for key in self._left if self.left(key, now) >= self._burst]:
                del self._left[full]
            self._look_at = max(_FEW, 2 * len(self._left))

    def taken(self, key: str, now: float) -> bool:
        """Take a token if there is one; whether there was."""
        if not self.has(key, now):
            return False
        self.take(key, now)
        return True
