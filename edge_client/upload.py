"""One update on its way in parts: what to send next, and what is on its way. Pure, like the core that owns it.

The aggregator's answers pace it: each says what is missing and up to which message it has heard. So a part that is on
its way is not sent again, and one that was lost is, whoever lost it.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from fedmq.schemas.messages import Missing
from fedmq.schemas.parts import Range, cut

__all__ = ["Piece", "Upload"]


class Piece(NamedTuple):
    """A part to send: its number, and the bytes from `start` up to, not including, `end`."""

    number: int
    start: int
    end: int


class Upload:
    """One update that does not fit into a message.

    Attributes:
        told_at: when the last answer came, in the owner's seconds; None before the first since the last connection.
        sent: whether all that was missing by that answer is on its way.

    """

    def __init__(self) -> None:
        self.told_at: float | None = None
        self.sent = False
        self._number = 0
        self._window = 0
        self._flying: list[Piece] = []
        self._wanted: list[Range] = []
        self._more = False  # is missing beside those

    def offered(self) -> int:
        """The number of an offer that goes out now."""
        self._number += 1
        return self._number

    def told(self, missing: Missing, part_bytes: int, now: float) -> None:
        """An answer came: what is missing, as of the last message that the aggregator had heard."""
        self.told_at = now
        heard = missing.heard
        self._flying = [piece for piece in self._flying if heard is not None and piece.number > heard]
        self._window = missing.window
        wanted = (
            (start, end)
            for start, end in cut(missing.ranges, part_bytes)
            if not any(piece.start < end and start < piece.end for piece in self._flying)
        )
        self._wanted = list(islice(wanted, missing.window))  # more are not sent before the next answer
        self.sent, self._more = False, next(wanted, None) is not None

    def pieces(self, most: int) -> list[Piece]:
        """The parts to send now, so that no more than `most` are on their way, and no more than the window."""
        room = min(self._window, most) - len(self._flying)
        sent, self._wanted = self._wanted[: max(0, room)], self._wanted[max(0, room) :]
        pieces = [Piece(self.offered(), start, end) for start, end in sent]
        self._flying += pieces
        self.sent = not self._wanted and not self._more
        return pieces

    def cut_off(self) -> None:
        """Nobody knows what of it came through, or whether it is wanted: the next answer says."""
        self.told_at, self.sent = None, False
        self._flying, self._wanted = [], []
