"""A snapshot that comes in parts: which topics to listen to, and what has come of it."""

from __future__ import annotations

from pathlib import Path

from fedmq.schemas.messages import Head, SnapshotPart
from fedmq.schemas.parts import cut
from fedmq.transport.spool import MemorySpool, Spool
from fedmq.transport.spool_opening import Opening

__all__ = ["Download"]

_QUIET_SECONDS = 5.0  # without any part, until those that are waited for are asked for; doubled each time
_QUIET_LONGEST = 120.0
_LEASE_SECONDS = 20.0  # between two times that the slot is asked to be kept
_AHEAD_SECONDS = 1.0  # of the link that the parts on their way may take: what comes behind them waits as long
_FIRST_WINDOW = 2
_LOOK_SECONDS = 0.1  # between two looks at whether what is here from before has been looked through


class Download:
    """One snapshot on its way.

    Args:
        head: of it, with a slot.
        path: of the file that it comes into; None keeps it in memory.
        window: parts that are waited for at a time, at most; fewer on a slow link.
        now: seconds.

    Attributes:
        head: of the snapshot.
        lost: its slot has another snapshot now, so it will never be complete.
        listening: parts whose topics are subscribed to.

    Raises:
        StoreError: the disk refuses.

    """

    def __init__(self, head: Head, path: Path | None, window: int, now: float) -> None:
        assert head.part_bytes is not None
        self.head = head
        self.lost = False
        self._part_bytes = head.part_bytes
        self._most = window
        self._window = min(_FIRST_WINDOW, window)
        self._came_at = now
        key = f"{head.run} {head.version} {head.digest}"
        self._opening = Opening(path, key, head.size) if path is not None else None
        self._spool: Spool | None = MemorySpool(head.size) if path is None else None
        self._look_at = now
        self.listening: set[int] = set()
        self._quiet = _QUIET_SECONDS
        self._ask_at = now + self._quiet
        self._lease_at = now

    @property
    def complete(self) -> bool:
        """Whether all of it is here."""
        return self._spool is not None and self._spool.coverage.complete

    def open(self, now: float) -> bool:
        """Whether what is here of it from before has been looked through since the last time this was asked.

        Nothing is listened to until then.

        Raises:
            StoreError: the disk refuses.

        """
        self._look_at = now + _LOOK_SECONDS
        if self._opening is None or not self._opening.ready:
            return False
        opening, self._opening = self._opening, None
        self._spool = opening.take()
        self._ask_at = now + self._quiet
        return True

    @property
    def came(self) -> int:
        """Bytes that are here."""
        there = self._spool.coverage.there() if self._spool is not None else []
        return sum(end - start for start, end in there)

    def body(self) -> memoryview:
        """The encoded weights, when it is complete."""
        assert self._spool is not None
        return self._spool.view()

    def digest(self) -> str:
        """The SHA-256 of them, in hex, when it is complete. Raises StoreError: the disk refuses."""
        assert self._spool is not None
        return self._spool.digest()

    def listen(self) -> tuple[list[int], list[int]]:
        """Parts whose topics to subscribe to now, and those to unsubscribe from."""
        wanted: set[int] = set()
        missing = self._spool.coverage.missing() if self._spool is not None else iter(())
        for start, _ in cut(missing, self._part_bytes):
            if len(wanted) >= self._window:
                break
            wanted.add(start // self._part_bytes)
        new, done = wanted - self.listening, self.listening - wanted
        self.listening = wanted
        return sorted(new), sorted(done)

    def connected(self) -> None:
        """Nothing is subscribed to any more."""
        self.listening = set()

    def take(self, slot: int, part: int, message: SnapshotPart, body: memoryview, now: float) -> None:
        """A part came, of this snapshot or of another."""
        if slot != self.head.slot or self._spool is None or self.complete:
            return
        if (message.run, message.version) != (self.head.run, self.head.version):
            # An older one is what a broker had kept from before; the right one is asked for.
            self.lost = self.lost or message.run != self.head.run or message.version > self.head.version
            return
        start = part * self._part_bytes
        if len(body) != min(self._part_bytes, self.head.size - start):
            return  # of parts that were cut otherwise; the right one is asked for
        self._spool.write(start, body)
        self._quiet = _QUIET_SECONDS
        self._ask_at = now + self._quiet
        self._window = max(1, min(self._most, int(_AHEAD_SECONDS / max(now - self._came_at, 1e-3)), self._window + 1))
        self._came_at = now

    def ask(self, now: float) -> tuple[int, ...] | None:
        """The parts to ask for now, none if only the slot is to be kept; None if there is nothing to say."""
        if self.complete or self.lost:
            return None
        if now >= self._ask_at and self._spool is not None:
            self._quiet = min(2 * self._quiet, _QUIET_LONGEST)
            self._ask_at, self._lease_at = now + self._quiet, now + _LEASE_SECONDS
            return tuple(sorted(self.listening))
        if now >= self._lease_at:
            self._lease_at = now + _LEASE_SECONDS
            return ()
        return None

    def deadline(self) -> float | None:
        """When `ask` is due."""
        if self._spool is None:
            return min(self._look_at, self._lease_at)
        return None if self.complete or self.lost else min(self._ask_at, self._lease_at)

    def close(self, *, remove: bool = False) -> None:
        """Let go of it; a later process goes on with what is on the disk, unless it is removed."""
        if self._opening is not None:
            self._opening.close()
        if self._spool is not None:
            self._spool.close()
            if remove:
                self._spool.remove()
