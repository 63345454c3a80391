"""Which bytes of a body are there, when it comes in parts: in any order, twice, or with gaps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

__all__ = ["GRAIN", "HEADER_BYTES", "LARGEST_MESSAGE_BYTES", "Coverage", "Range", "cut", "part_bytes"]

HEADER_BYTES = 7 * 1024
"""What a message with a body may have beside it: with 120 KiB of data and its topic it stays below 128 KiB."""

LARGEST_MESSAGE_BYTES = (1 << 20) + HEADER_BYTES
"""What is taken from a peer in one message: it may be set to larger ones than this side."""

GRAIN = 4096
"""Parts begin and end at multiples of it, whatever their size, but for the last: so two sizes leave no crumbs."""

Range = tuple[int, int]
"""Bytes from the first number up to, not including, the second."""


class Coverage:
    """The bytes of a body of `size` bytes that have come.

    Args:
        size: of the body.
        ranges: that are there from before.

    """

    def __init__(self, size: int, ranges: Iterable[Range] = ()) -> None:
        self.size = size
        self._starts: list[int] = []  # of ranges that neither overlap nor touch, in order
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """These bytes have come, perhaps again; what lies outside the body is no part of it."""
        start, end = max(start, 0), min(end, self.size)
        if start >= end:
            return
        first = bisect_left(self._ends, start)  # the first that it touches
        last = bisect_right(self._starts, end)  # after the last that it touches
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def there(self) -> list[Range]:
        """The ranges that have come, in order."""
        return list(zip(self._starts, self._ends, strict=True))

    def missing(self) -> Iterator[Range]:
        """The ranges that have not come, in order, as they are asked for: there may be very many."""
        return self._lacks(0, self.size)

    def lacks(self, start: int, end: int) -> list[Range]:
        """Those bytes from `start` up to `end` that have not come, in order."""
        return list(self._lacks(start, end))

    def _lacks(self, start: int, end: int) -> Iterator[Range]:
        place = bisect_right(self._ends, start)  # the first range that ends after it
        while start < end:
            begins, ends = (self._starts[place], self._ends[place]) if place < len(self._ends) else (end, end)
            if begins > start:
                yield start, min(begins, end)
            start, place = max(ends, start), place + 1

    @property
    def first_missing(self) -> int:
        """The first byte that is not there; `size` if all are."""
        return self._ends[0] if self._starts[:1] == [0] else 0

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self._starts == [0] and self._ends == [self.size] if self.size else True


def part_bytes(max_message_bytes: int) -> int:
    """How much of a body fits into a message of at most so many bytes."""
    return max(GRAIN, (max_message_bytes - HEADER_BYTES) // GRAIN * GRAIN)


def cut(ranges: Iterable[Range], part_bytes: int) -> Iterator[Range]:
    """These ranges in pieces of at most `part_bytes`, which end at multiples of it."""
    for start, end in ranges:
        while start < end:
            piece_end = min(end, (start // part_bytes + 1) * part_bytes)
            yield start, piece_end
            start = piece_end
