"""Snapshots that do not fit into one message: parts under retained topics, in a ring of slots that are overwritten.

A device takes the parts one after the other, at its own pace, and may take longer than the model needs for a new
version. So a slot that somebody still reads is kept for a while; one slot always goes on with the newest.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fedmq.schemas.errors import StoreError
from fedmq.schemas.messages import Head, Need, SnapshotPart
from fedmq.schemas.parts import part_bytes
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.transport.link import Link

__all__ = ["SLOTS", "Kept", "Snapshots"]

log = logging.getLogger("fedmq.aggregator")

SLOTS = 2
"""One for the newest snapshot, and one for the one before it, or for who is slow."""

_WINDOW = 8  # parts on their way to the broker at a time
_STEP_SECONDS = 0.002  # between two looks at how many of them it has taken
_LEASE_SECONDS = 60.0  # that a slot is kept after somebody said that they read it
_LONGEST_LEASE_SECONDS = 3600.0  # that it is kept in all: its version grows old
_READERS = 64  # of a slot that are remembered
_AGAIN_SECONDS = 2.0  # between two times that the same part is published for those who miss it


class Kept:
    """A snapshot's bytes: in a file without a name if there is a folder with room for them, else in memory.

    Args:
        body: the bytes.
        folder: for the file; None keeps them in memory.

    """

    def __init__(self, body: memoryview, folder: Path | None) -> None:
        self.size = len(body)
        self._file: IO[bytes] | None = None
        self._memory: memoryview | None = body
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (kept as long as the slot)
            written = 0
            while written < self.size:
                written += self._file.write(body[written:])
            self._memory = None
        except OSError as error:
            self._close()  # without a name it would keep the disk full
            log.warning("a snapshot stays in memory bytes=%d: %s", self.size, error)

    def read(self, start: int, size: int) -> bytes | memoryview:
        """So many bytes from `start` on, or as many as there are. Raises StoreError: the disk refuses."""
        if self._memory is not None:
            return self._memory[start : start + size]
        assert self._file is not None
        size = min(size, self.size - start)
        try:
            data = os.pread(self._file.fileno(), size, start)
        except OSError as error:
            raise StoreError(f"a snapshot cannot be read: {error}") from error
        if len(data) != size:
            raise StoreError(f"a snapshot cannot be read: {len(data)} of {size} bytes at {start}")
        return data

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def __del__(self) -> None:
        # A slot, a snapshot on its way, or both refer to it: whoever is the last one lets it go.
        self._close()


@dataclass(slots=True)
class _Slot:
    head: Head | None = None  # of the snapshot whose parts are all out
    body: Kept | None = None
    since: float = 0.0  # when it was out
    readers: dict[str, float] = field(default_factory=dict)  # who reads it, and when they said so last
    again: set[int] = field(default_factory=set)  # parts that somebody misses
    again_at: float = float("-inf")


class Snapshots:
    """Publishes one snapshot at a time in parts.

    Args:
        link: to the broker.
        topics: of the federation.
        folder: where snapshots lie while they may be asked for, and where it remembers between processes which topics
            it has filled; None keeps them in memory.

    """

    def __init__(self, link: Link, topics: Topics, folder: Path | None) -> None:
        self._link = link
        self._topics = topics
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._newest = 0
        self._folder = folder
        self._path = folder / "slots.json" if folder else None
        self._filled = self._read_filled()  # of each slot, how many topics may hold something
        self._coming: tuple[int, Head, Kept, int] | None = None  # slot, head, body, the next part
        self._begun = 0.0
        self._look_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether a snapshot is on its way out."""
        return self._coming is not None

    @property
    def newest(self) -> Head | None:
        """The head of the newest snapshot whose parts are out."""
        return self._slots[self._newest].head

    def fits(self, size: int) -> bool:
        """Whether a snapshot of this size goes into one message."""
        return size <= part_bytes(self._link.max_message_bytes)

    def left(self, head: Head | None) -> None:
        """What the broker shows from before: what lies in its slots is overwritten in time, or emptied."""
        if head is None or head.slot is None or head.part_bytes is None or head.slot >= SLOTS:
            return
        self._newest = head.slot
        parts = -(-head.size // head.part_bytes)
        self._filled = [max(parts, filled) for filled in self._filled]
        self._write_filled()

    def keep(self, body: memoryview) -> Kept:
        """A snapshot's bytes for `adopt` or `begin`. From any thread."""
        return Kept(body, self._folder)

    def adopt(self, head: Head, body: Kept, now: float) -> None:
        """The parts of this snapshot are out, from before; who misses some of them will say so."""
        assert head.slot is not None
        self._slots[head.slot] = _Slot(head, body, since=now)
        self._newest = head.slot

    def begin(self, head: Head, body: Kept, now: float) -> None:
        """Publish a snapshot, step by step in `work`; `head` says neither slot nor size of the parts yet."""
        slot = self._next_slot(now)
        size = part_bytes(self._link.max_message_bytes)
        head = head.model_copy(update={"slot": slot, "part_bytes": size})
        parts = -(-body.size // size)
        if parts > self._filled[slot]:
            self._filled[slot] = parts
            self._write_filled()
        self._slots[slot] = _Slot()
        self._coming, self._begun, self._look_at = (slot, head, body, 0), now, now

    def work(self, now: float) -> tuple[Head, float] | None:
        """Go on; the head of the snapshot whose parts are all out now, to be shown, and how long that took.

        Raises:
            StoreError: a snapshot cannot be read from the disk; `forget` and begin anew.

        """
        if now < self._look_at:
            return None
        self._look_at = now + _STEP_SECONDS
        self._publish_again(now)
        if self._coming is None:
            return None
        slot, head, body, part = self._coming
        assert head.part_bytes is not None
        while self._link.in_flight < _WINDOW and part * head.part_bytes < body.size:
            if not self._publish_part(slot, head, body, part):
                return None
            part += 1
        self._coming = (slot, head, body, part)
        if part * head.part_bytes < body.size:
            return None
        self._clear(slot, part)
        self._link.publish(self._topics.slot(slot), encode(head), retain=True)
        self._slots[slot] = _Slot(head, body, since=now)
        self._newest, self._coming = slot, None
        return head, now - self._begun

    def deadline(self) -> float | None:
        """When to call `work`; None if there is nothing to do."""
        return self._look_at if self._coming is not None or any(slot.again for slot in self._slots) else None

    def need(self, client_id: str, need: Need, now: float) -> None:
        """Somebody reads a snapshot, misses parts of it, or is done."""
        for slot in self._slots:
            head = slot.head
            if head is None or (head.run, head.version) != (need.run, need.version):
                continue
            slot.readers.pop(client_id, None)
            if not need.done:
                slot.readers[client_id] = now  # the newest word last
            for reader in list(slot.readers)[:-_READERS]:
                del slot.readers[reader]
            assert head.part_bytes is not None
            slot.again |= {part for part in need.parts if part * head.part_bytes < head.size}

    def clear(self) -> None:
        """Snapshots fit into one message: what earlier ones have left on the broker goes."""
        for slot in range(SLOTS):
            self._clear(slot, 0)
            self._slots[slot] = _Slot()

    def forget(self) -> None:
        """What is out and what was on its way is begun anew."""
        self._coming = None
        self._slots = [_Slot() for _ in range(SLOTS)]

    def _next_slot(self, now: float) -> int:
        """The slot to overwrite: the one that is not the newest, unless somebody still reads that."""
        other = (self._newest + 1) % SLOTS
        slot = self._slots[other]
        read = now < max(slot.readers.values(), default=float("-inf")) + _LEASE_SECONDS
        read = read and now < slot.since + _LONGEST_LEASE_SECONDS
        return self._newest if slot.head is not None and read else other

    def _publish_part(self, slot: int, head: Head, body: Kept, part: int) -> bool:
        assert head.part_bytes is not None
        data = body.read(part * head.part_bytes, head.part_bytes)
        payload = encode(SnapshotPart(run=head.run, version=head.version), data)
        return self._link.publish(self._topics.part(slot, part), payload, retain=True)

    def _publish_again(self, now: float) -> None:
        for number, slot in enumerate(self._slots):
            if not slot.again or slot.head is None or slot.body is None or now < slot.again_at:
                continue
            while slot.again and self._link.in_flight < _WINDOW:
                self._publish_part(number, slot.head, slot.body, slot.again.pop())
            if not slot.again:
                slot.again_at = now + _AGAIN_SECONDS

    def _clear(self, slot: int, first: int) -> None:
        """Empty the topics of parts that the slot's snapshot does not have."""
        if self._filled[slot] <= first:
            return
        for part in range(first, self._filled[slot]):
            self._link.publish(self._topics.part(slot, part), b"", retain=True)
        if not first:
            self._link.publish(self._topics.slot(slot), b"", retain=True)
        self._filled[slot] = first
        self._write_filled()

    def _read_filled(self) -> list[int]:
        try:
            filled = json.loads(self._path.read_text(encoding="utf-8")) if self._path else []
            return [int(filled[slot]) for slot in range(SLOTS)]
        except (OSError, ValueError, TypeError, LookupError):
            return [0] * SLOTS

    def _write_filled(self) -> None:
        # Written before the topics are filled and after they are emptied; if it is lost, some topics stay filled.
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._filled), encoding="utf-8")
        except OSError as error:
            log.warning("what is in the slots is not noted: %s", error)
