"""The verdicts on one outbox's last sequence numbers, packed: a dictionary of them takes ten times the memory.

There is one of these for every client that was ever heard, so its size is the aggregator's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, get_args

from fedmq.schemas.errors import Reason

__all__ = ["DIGEST_BYTES", "RECORD_BYTES", "WINDOW", "Verdict", "Window"]

WINDOW = 64
"""Sequence numbers of an outbox that are remembered; an outbox holds fewer than this many updates."""

DIGEST_BYTES = 8
"""Of an update's digest, those that are remembered: enough to tell two contents of one update id apart."""

_REASONS: tuple[Reason, ...] = get_args(Reason)
_RECORD = struct.Struct(f"<B{DIGEST_BYTES}sQI")  # what was said, digest, version, staleness
_NOTHING, _ACCEPTED, _REJECTED = 0, 1, 2  # and so on, in the order of the reasons: it is the same for ever
_MOST_STALENESS = (1 << 32) - 1

RECORD_BYTES = _RECORD.size
"""That a verdict takes."""


class Verdict(NamedTuple):
    """What is remembered of a receipt; its sentence is not.

    Attributes:
        digest: the first bytes of the update's.
        reason: why it was rejected; None if it was accepted.
        version, staleness: as in the receipt of an accepted update, else None.

    """

    digest: bytes
    reason: Reason | None
    version: int | None
    staleness: int | None


class Window:
    """Verdicts by sequence number: of the newest, and of those less than WINDOW below it.

    Args:
        newest: the highest number that has a verdict; -1 without any.
        records: what `packed` gave of it; None without any verdict.

    Raises:
        ValueError: these are no such records.

    """

    __slots__ = ("_records", "newest")

    def __init__(self, newest: int = -1, records: bytes | None = None) -> None:
        self.newest = newest
        self._records = bytearray(WINDOW * RECORD_BYTES if records is None else records)
        most = _REJECTED + len(_REASONS)
        if len(self._records) != WINDOW * RECORD_BYTES or max(self._records[::RECORD_BYTES]) >= most:
            raise ValueError(f"{len(self._records)} bytes of records that cannot be read")

    def get(self, sequence: int) -> Verdict | None:
        """The verdict on this number, if it is in the window and has one."""
        if not self.newest - WINDOW < sequence <= self.newest:
            return None
        said, digest, version, staleness = _RECORD.unpack_from(self._records, _at(sequence))
        if said == _ACCEPTED:
            return Verdict(digest, None, version, staleness)
        return None if said == _NOTHING else Verdict(digest, _REASONS[said - _REJECTED], None, None)

    def put(
        self, sequence: int, digest: bytes, reason: Reason | None, version: int | None, staleness: int | None
    ) -> bytes:
        """Remember a verdict on a number that is not below the window, see `Verdict`; as what it is kept."""
        said = _ACCEPTED if reason is None else _REJECTED + _REASONS.index(reason)
        record = _RECORD.pack(said, digest, version or 0, min(staleness or 0, _MOST_STALENESS))
        self.put_record(sequence, record)
        return record

    def put_record(self, sequence: int, record: bytes) -> None:
        """Remember what `put` gave, on a number that is not below the window."""
        if sequence > self.newest:
            self._go_on(sequence)
        at = _at(sequence)
        self._records[at : at + RECORD_BYTES] = record

    def packed(self) -> bytes:
        """All of it but `newest`."""
        return bytes(self._records)

    def __iter__(self) -> Iterator[int]:
        """The numbers that have a verdict, in order."""
        return (s for s in range(max(0, self.newest - WINDOW + 1), self.newest + 1) if self.get(s) is not None)

    def __len__(self) -> int:
        """How many verdicts it remembers."""
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        """Whether both remember the same."""
        return isinstance(other, Window) and [(s, self.get(s)) for s in self] == [(s, other.get(s)) for s in other]

    __hash__ = None  # type: ignore[assignment]

    def _go_on(self, sequence: int) -> None:
        """Make this number the newest."""
        if sequence > self.newest + 1:
            for passed in range(max(self.newest + 1, sequence - WINDOW + 1), sequence):  # of which nothing came yet
                self._records[_at(passed)] = _NOTHING
        self.newest = sequence


def _at(sequence: int) -> int:
    return sequence % WINDOW * RECORD_BYTES
