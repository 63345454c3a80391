"""Decisions drawn from a fuzzer's bytes: the same bytes are the same hostile messages, whoever made the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Choices"]

T = TypeVar("T")


class Choices:
    """Reads decisions from bytes; where they end, every decision is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there are bytes left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """0 to 255."""
        at = self._at
        if at >= len(self._data):
            return 0
        self._at = at + 1
        return self._data[at]

    def number(self, size: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.bytes(size))

    def below(self, count: int) -> int:
        """0 to `count` - 1."""
        return (self.byte() if count <= 256 else self.number(3)) % count

    def chance(self, of_256: int) -> bool:
        """True in so many of 256 cases; False where the bytes end."""
        return 256 - self.byte() <= of_256

    def pick(self, options: Sequence[T]) -> T:
        """One of these."""
        return options[self.below(len(options))]

    def bytes(self, size: int) -> bytes:
        """So many bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken if len(taken) == size else taken + bytes(size - len(taken))
