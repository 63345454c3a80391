"""The last so many numbers, and their median at any moment without sorting them anew."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator

__all__ = ["Recent"]


class Recent:
    """A queue of numbers that forgets the oldest.

    Args:
        most: how many it remembers.
        values: the first, oldest first.

    """

    __slots__ = ("_ordered", "_values")

    def __init__(self, most: int, values: Iterable[float] = ()) -> None:
        self._values: deque[float] = deque(maxlen=most)
        self._ordered: list[float] = []
        self.extend(values)

    def append(self, value: float) -> None:
        """Remember a number, which is none but a number: NaN has no order."""
        values, ordered = self._values, self._ordered
        if len(values) == values.maxlen:
            gone = values[0]
            values.append(value)
            if gone == value:  # as of sample counts, which a device seldom changes
                return
            del ordered[bisect_left(ordered, gone)]
        else:
            values.append(value)
        insort(ordered, value)

    def extend(self, values: Iterable[float]) -> None:
        """Remember numbers, oldest first."""
        for value in values:
            self.append(value)

    def median_low(self, of_none: float) -> float:
        """The middle one, or the lower of the middle two, or what is given where there are none."""
        ordered = self._ordered
        return ordered[(len(ordered) - 1) // 2] if ordered else of_none

    def __iter__(self) -> Iterator[float]:
        """Oldest first."""
        return iter(self._values)

    def __len__(self) -> int:
        """How many it remembers now."""
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        """Whether both remember the same."""
        return isinstance(other, Recent) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]
