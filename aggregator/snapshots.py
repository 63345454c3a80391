"""Snapshots that do not fit into one message: parts under retained topics, in a ring of slots that are overwritten.

A device takes the parts one after the other, at its own pace, and may take longer than the model needs for a new
version. So a slot that somebody still reads is kept for a while; one slot always goes on with the newest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fedmq.aggregator.buckets import Buckets
from fedmq.aggregator.kept_snapshot import Kept
from fedmq.aggregator.missed import Missed
from fedmq.aggregator.readers import Readers, Turns
from fedmq.aggregator.slot_notes import SLOTS, SlotNotes
from fedmq.schemas.messages import Head, Need, SnapshotPart
from fedmq.schemas.parts import part_bytes
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.transport.link import Link

__all__ = ["Snapshots"]

_WINDOW = 8  # parts on their way to the broker at a time
_STEP_SECONDS = 0.002  # between two looks at how many of them it has taken
_LATE_SECONDS = 10.0  # after a newer snapshot is out, in which somebody may begin who had not heard of it
_AGAIN_TURN = 4  # while a snapshot comes, the turn of a part that somebody misses: every fourth
# Parts that one client may have published again: FedMQ asks for no more than 8 in 5 seconds.
_AGAIN_PER_SECOND, _AGAIN_AT_ONCE = 2.0, 64.0


@dataclass(slots=True)
class _Slot:
    head: Head | None = None  # of the snapshot whose parts are all out
    body: Kept | None = None  # None if an earlier process has published it
    since: float = float("inf")  # when it was out, as far as this process knows
    readers: Readers = field(default_factory=Readers)
    missed: Missed = field(default_factory=Missed)


@dataclass(slots=True)
class _Coming:
    """A snapshot on its way out, and the part that is next."""

    slot: int
    head: Head
    body: Kept
    part: int = 0

    @property
    def is_out(self) -> bool:
        """Whether that was the last part."""
        assert self.head.part_bytes is not None
        return self.part * self.head.part_bytes >= self.body.size


# Topics that a head on the broker is believed to have filled: it may be anybody's, and say anything, and to empty each
# of them takes a message. What this folder's aggregators have filled stands in their notes, however many they are.
_MOST_SHOWN = 2048


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
        self._notes = SlotNotes(folder / "slots.json" if folder else None)
        self._slots = [_Slot(head) for head in self._notes.heads]
        self._newest = 0
        self._overtaken: int | None = None  # the slot that was the newest before, if it was not overwritten
        self._newest_is_out = False  # as far as is known since the last connection
        self._folder = folder
        self._coming: _Coming | None = None
        self._again = Buckets(_AGAIN_PER_SECOND, _AGAIN_AT_ONCE)
        self._published = 0
        self._turns = Turns(Random())
        self._begun = 0.0
        self._look_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether a snapshot is on its way out."""
        return self._coming is not None

    @property
    def newest(self) -> Head | None:
        """The head of the newest snapshot if its parts are out for certain; a broker may have lost them."""
        return self._slots[self._newest].head if self._newest_is_out else None

    def fits(self, size: int) -> bool:
        """Whether a snapshot of this size goes into one message."""
        return size <= part_bytes(self._link.max_message_bytes)

    def connected(self, head: Head | None, now: float) -> None:
        """There is a connection, and the broker shows this head from before: its parts are in one of the slots."""
        for number, slot in enumerate(self._slots):
            if slot.body is None and slot.head is not None and _is_gone(slot.head, head):
                self._slots[number] = _Slot()  # its topics may hold something nevertheless
                self._note(number, None)
                continue
            slot.since = min(slot.since, now)
            if slot.readers or slot.body is None:
                slot.readers.reads("", now, is_newest=True)  # who reads it has time to say so again
        if head is None or head.slot is None or head.part_bytes is None or head.slot >= SLOTS:
            return
        self._newest = head.slot
        if not _same(self._slots[head.slot].head, head):
            self._slots[head.slot] = _Slot(head, since=now)
        parts = min(-(-head.size // head.part_bytes), _MOST_SHOWN)
        self._notes.filled = [max(parts, filled) for filled in self._notes.filled]
        self._note(head.slot, head)

    def keep(self, body: memoryview) -> Kept:
        """A snapshot's bytes for `adopt` or `begin`. From any thread."""
        return Kept(body, self._folder)

    def adopt(self, head: Head, body: Kept, now: float) -> None:
        """The parts of this snapshot are out, from before; who misses some of them will say so."""
        assert head.slot is not None
        slot = self._slots[head.slot]
        readers, since = (slot.readers, slot.since) if _same(slot.head, head) else (Readers(), now)
        self._slots[head.slot] = _Slot(head, body, since, readers)
        self._newest, self._newest_is_out = head.slot, True
        self._note(head.slot, head)

    def begin(self, head: Head, body: Kept, now: float) -> None:
        """Publish a snapshot, step by step in `work`; `head` says neither slot nor size of the parts yet."""
        size = part_bytes(self._link.max_message_bytes)
        head = head.model_copy(update={"slot": self._newest, "part_bytes": size})
        # The same again is for a broker that lost it: who has some parts of it goes on with them.
        slot = self._newest if _same(self._slots[self._newest].head, head) else self._next_slot(now)
        head = head.model_copy(update={"slot": slot})
        self._notes.filled[slot] = max(-(-body.size // size), self._notes.filled[slot])
        self._slots[slot] = _Slot()
        self._note(slot, None)
        self._coming, self._begun, self._look_at = _Coming(slot, head, body), now, now

    def work(self, now: float) -> tuple[Head, float] | None:
        """Go on; the head of the snapshot whose parts are all out now, to be shown, and how long that took.

        Raises:
            StoreError: a snapshot cannot be read from the disk; `forget` and begin anew.

        """
        if now < self._look_at:
            return None
        self._look_at = now + _STEP_SECONDS
        while self._link.in_flight < _WINDOW and self._publish_next(now):
            pass
        coming = self._coming
        if coming is None or not coming.is_out:
            return None
        slot, head = coming.slot, coming.head
        self._clear(slot, coming.part)
        self._link.publish(self._topics.slot(slot), encode(head), retain=True)
        self._slots[slot] = _Slot(head, coming.body, since=now)
        self._overtaken = self._newest if slot != self._newest else None
        self._newest, self._newest_is_out, self._coming = slot, True, None
        self._note(slot, head)
        return head, now - self._begun

    def deadline(self) -> float | None:
        """When to call `work`; None if there is nothing to do."""
        return self._look_at if self._coming is not None or any(slot.missed for slot in self._slots) else None

    def need(self, client_id: str, need: Need, now: float) -> None:
        """Somebody reads a snapshot, misses parts of it, or is done."""
        for number, slot in enumerate(self._slots):
            head = slot.head
            if head is None or (head.run, head.version) != (need.run, need.version):
                if not need.done:
                    slot.readers.leaves(client_id)  # one at a time
                continue
            if need.done:
                slot.readers.leaves(client_id)
            else:
                slot.readers.reads(client_id, now, is_newest=self._is_newest(number, now))
            assert head.part_bytes is not None
            if slot.body is None:
                continue
            for part in need.parts:
                is_one = part * head.part_bytes < head.size
                if is_one and slot.missed.would_take(part, now) and self._again.taken(client_id, now):
                    slot.missed.add(part)

    def clear(self) -> None:
        """Snapshots fit into one message: what earlier ones have left on the broker goes."""
        for slot in range(SLOTS):
            self._clear(slot, 0)
            self._slots[slot] = _Slot()

    def disconnected(self) -> None:
        """What was on its way is begun anew; what is out has its readers still."""
        self._coming, self._newest_is_out = None, False

    def forget(self) -> None:
        """What is out and what was on its way is begun anew."""
        self.disconnected()
        self._slots = [_Slot() for _ in range(SLOTS)]

    def _next_slot(self, now: float) -> int:
        """The slot to overwrite: the one that is not the newest, unless that is kept for who reads it."""
        other = (self._newest + 1) % SLOTS
        older, newest = self._slots[other], self._slots[self._newest]
        if older.head is None:
            return other
        kept = self._turns.keeps(older.readers, newest.readers, older.head.size, now - older.since, now)
        return self._newest if kept else other

    def _is_newest(self, number: int, now: float) -> bool:
        """Whether who begins with this slot now may take it for the newest, or have begun before this process."""
        was_just_now = number == self._overtaken and now < self._slots[self._newest].since + _LATE_SECONDS
        return number == self._newest or was_just_now or self._slots[number].body is None

    def _publish_next(self, now: float) -> bool:
        """Publish a part, of the snapshot on its way or one that somebody misses; whether there may be more now."""
        coming = self._coming
        if coming is not None and coming.is_out:
            return False  # its head is next
        self._published += 1
        if coming is None or self._published % _AGAIN_TURN == 0:
            for number, slot in enumerate(self._slots):
                if slot.head is None or slot.body is None or (part := slot.missed.take(now)) is None:
                    continue
                return self._publish_part(number, slot.head, slot.body, part)
        if coming is None or not self._publish_part(coming.slot, coming.head, coming.body, coming.part):
            return False
        coming.part += 1
        return True

    def _publish_part(self, slot: int, head: Head, body: Kept, part: int) -> bool:
        assert head.part_bytes is not None
        data = body.read(part * head.part_bytes, head.part_bytes)
        payload = encode(SnapshotPart(run=head.run, version=head.version), data)
        return self._link.publish(self._topics.part(slot, part), payload, retain=True)

    def _clear(self, slot: int, first: int) -> None:
        """Empty the topics of parts that the slot's snapshot does not have."""
        if self._notes.filled[slot] <= first:
            return
        for part in range(first, self._notes.filled[slot]):
            self._link.publish(self._topics.part(slot, part), b"", retain=True)
        if not first:
            self._link.publish(self._topics.slot(slot), b"", retain=True)
        self._notes.filled[slot] = first
        self._note(slot, None)

    def _note(self, slot: int, head: Head | None) -> None:
        self._notes.heads[slot] = head
        self._notes.write()


def _is_gone(noted: Head, shown: Head | None) -> bool:
    """Whether the broker has lost what was noted: it shows nothing, something older, or something of another run."""
    return shown is None or noted.run != shown.run or noted.version > shown.version


def _same(one: Head | None, other: Head) -> bool:
    """Whether both are of the same parts, wherever they lie."""
    return one is not None and (one.run, one.version, one.digest, one.part_bytes) == (
        other.run,
        other.version,
        other.digest,
        other.part_bytes,
    )
