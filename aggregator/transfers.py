"""Updates that come in parts, on their way: what is here of each, and how fast its client may send.

They promise nothing: an update counts when it is judged, and it is judged when it is whole. What takes longer than a
moment goes to the disk, and survives a restart as far as the disk has it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedmq.schemas.errors import ConfigError, ProtocolError, StoreError
from fedmq.schemas.messages import Later, Missing, Offer, Part
from fedmq.schemas.parts import GRAIN, Coverage
from fedmq.transport.spool import FileSpool, MemorySpool, Spool, key_of, remove
from fedmq.transport.spool_opening import Opening

__all__ = ["Transfers", "spool_bytes"]

_WINDOW = 8  # parts of one client on their way at most
_ALL_WINDOWS = 16  # parts of all together, if that leaves each of them one: a broker's queue may hold no more than 20
_ACTIVE_SECONDS = 10.0  # since its last part, that a client has its share of the windows
_NEXT_PART_SECONDS = 0.03  # after a part, in which the next one most likely comes
_IDLE_SECONDS = 120.0  # after which a transfer may be given up for another one
_BUSY_SECONDS = 5.0  # until a client that found no room offers again
_LEFT_SECONDS = 10.0  # after a restart, in which a client may come back to what is half here of it
_MOST_KNOWN = 1024  # offers without bytes; beyond it, those are forgotten that nothing has followed for longest
_IN_MEMORY_BYTES = 16 << 20  # of an update; a larger one goes to the disk from its first part on
_ALL_IN_MEMORY_BYTES = 64 << 20  # of all updates
_IN_MEMORY_SECONDS = 2.0  # since its first part; then a crash may cost no more of it
_MOST_PUT_OFF = 128  # on the disk, beyond which none goes there early: each has two files open, of perhaps 1,024
_USUAL_BYTES = 4 << 30  # for all updates on the disk
_RANGES = 64  # that an answer names


@dataclass(slots=True)
class _Transfer:
    offer: Offer
    heard: int | None
    at: float  # when the first offer or the last part of it came
    spool: Spool | None = None  # opened for the first part
    opened: float = 0.0
    window: int = 1  # that its client was told last
    unanswered: int = 0  # parts since then

    def missing(self, window: int) -> Missing:
        self.window, self.unanswered = window, 0
        coverage = self.spool.coverage if self.spool else Coverage(self.offer.size)
        ranges = tuple(zip(range(_RANGES), coverage.missing(), strict=False))
        return Missing(
            update=self.offer.update, ranges=tuple(found for _, found in ranges), window=window, heard=self.heard
        )


class Transfers:
    """At most one update of each client, on the disk.

    Args:
        folder: of the spools.
        most_bytes: what all updates together may take there.

    Attributes:
        coming_until: the time until which more of an update that is half here most likely comes.

    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.coming_until = float("-inf")
        self._folder = folder
        self._most_bytes = most_bytes
        self._transfers: dict[str, _Transfer] = {}
        self._judged: list[tuple[str, _Transfer]] = []  # whose verdict is in no commit yet
        self._committing: list[tuple[str, _Transfer]] = []  # whose verdict is in the commit that is being written
        # What an earlier process left, whose key and size; whoever comes back goes on with it.
        self._left = {path.stem: (key_of(path), path.stat().st_size) for path in folder.glob("*.body")}
        self._taken = sum(size for _, size in self._left.values())  # bytes, of these and of all with a part here
        self._first_at: float | None = None
        self._opening: tuple[str, Opening] | None = None  # of what was left: whose is read again, one after the other

    def ask(self, client_id: str, offer: Offer, now: float) -> Missing | Later | Spool:
        """What to answer to an offer without its bytes, which could be admitted; what has the bytes if all are here."""
        transfer = self._transfers.get(client_id)
        self._first_at = now if self._first_at is None else self._first_at
        left, _ = self._left.get(client_id, (_key(offer), 0))
        if left != _key(offer) and (now < self._first_at + _LEFT_SECONDS or self._is_opening(client_id)):
            return _later(offer)  # the one that is half here may be offered next
        if transfer is not None and _key(transfer.offer) != _key(offer):
            if now < transfer.at + _IDLE_SECONDS:
                return _later(offer)
            self.over(client_id)
            transfer = None
        if (transfer is None or transfer.spool is None) and not self._make_room(client_id, offer.size, now):
            return _later(offer)
        resumed: Spool | None = None
        if client_id in self._left and left == _key(offer):
            resumed = self._resumed(client_id, offer)
            if resumed is None:
                return _later(offer)
        if transfer is None:
            if len(self._transfers) >= _MOST_KNOWN:
                self._forget(now)
            transfer = self._transfers[client_id] = _Transfer(offer, offer.number, now)
        if resumed is not None:
            self._open(client_id, transfer, resumed, now)
        transfer.offer, transfer.heard = offer, offer.number
        if transfer.spool is not None and transfer.spool.coverage.complete:
            return transfer.spool
        return transfer.missing(self._window(now))

    def take(self, client_id: str, part: Part, body: memoryview, now: float) -> Missing | Later | Offer | None:
        """Keep a part; its offer when the update is whole, what is missing now and then, or nothing to say.

        Later if it is the first, and there is no room for the others any more.

        Raises:
            ProtocolError: the part cannot be one of this update.
            StoreError: the disk refuses.

        """
        transfer = self._transfers.get(client_id)
        if transfer is None or (transfer.offer.update, transfer.offer.digest) != (part.update, part.digest):
            return None  # its offer will come, or its verdict is on the way
        end = part.offset + len(body)
        size = transfer.offer.size
        if end > size or not body or part.offset % GRAIN or (end % GRAIN and end < size):
            raise ProtocolError("malformed", f"a part of {len(body)} bytes at {part.offset} of an update of {size}")
        if transfer.spool is None:
            if not self._has_room(client_id, transfer.offer.size):
                return _later(transfer.offer)
            self._drop_left(client_id)  # another update
            self._open(client_id, transfer, self._new_spool(client_id, transfer.offer), now)
            assert transfer.spool is not None
        elif isinstance(transfer.spool, MemorySpool) and now > transfer.opened + _IN_MEMORY_SECONDS:
            transfer.spool = self._moved(transfer.spool, client_id, transfer.offer)
        transfer.spool.write(part.offset, body)
        transfer.heard, transfer.at = max(part.number, transfer.heard or 0), now
        transfer.unanswered += 1
        if transfer.spool.coverage.complete:
            begun = (one.at for one in self._transfers.values() if one.spool and not one.spool.coverage.complete)
            self.coming_until = max(begun, default=float("-inf")) + _NEXT_PART_SECONDS
            return transfer.offer
        self.coming_until = now + _NEXT_PART_SECONDS
        # Half of the window that its client knows of: a larger one of now it might never fill.
        return transfer.missing(self._window(now)) if transfer.unanswered >= max(1, transfer.window // 2) else None

    def lacks(self, client_id: str, part: Part, size: int) -> bool:
        """Whether a part of so many bytes brings something that is not here."""
        transfer = self._transfers.get(client_id)
        if transfer is None or (transfer.offer.update, transfer.offer.digest) != (part.update, part.digest):
            return False
        return transfer.spool is None or bool(transfer.spool.coverage.lacks(part.offset, part.offset + size))

    def put_off(self, client_id: str, offer: Offer) -> None:
        """An update waits for a verdict; if all of it is here, a crash may not cost it, as far as the disk has room."""
        transfer = self._transfers.get(client_id)
        if transfer is None or _key(transfer.offer) != _key(offer) or not isinstance(transfer.spool, MemorySpool):
            return
        on_disk = sum(isinstance(one.spool, FileSpool) for one in self._transfers.values())
        if transfer.spool.coverage.complete and on_disk < _MOST_PUT_OFF:
            with suppress(StoreError):  # then it comes again
                transfer.spool = self._moved(transfer.spool, client_id, transfer.offer)

    def judged(self, client_id: str, offer: Offer) -> None:
        """An update has its verdict; its bytes stay until that is committed."""
        transfer = self._transfers.get(client_id)
        if transfer is not None and _key(transfer.offer) == _key(offer):
            self._judged.append((client_id, transfer))

    def committing(self) -> None:
        """All verdicts until now are in the commit that begins."""
        self._committing += self._judged
        self._judged.clear()

    def committed(self) -> None:
        """The commit that had begun is on the disk; verdicts that were given meanwhile are not."""
        for client_id, transfer in self._committing:
            if self._transfers.get(client_id) is transfer:
                self.over(client_id)
        self._committing.clear()

    def forgotten(self) -> None:
        """The verdicts since the last commit are void: their updates are judged again."""
        self._judged.clear()
        self._committing.clear()

    def over(self, client_id: str) -> None:
        """Give this client's transfer up, or be done with it."""
        transfer = self._transfers.pop(client_id, None)
        if transfer is not None and transfer.spool is not None:
            self._taken -= transfer.offer.size
            transfer.spool.close()
            transfer.spool.remove()

    def close(self) -> None:
        """Leave to the next process what is here."""
        for client_id, transfer in self._transfers.items():
            spool = transfer.spool
            if isinstance(spool, MemorySpool):
                with suppress(StoreError):  # then it comes again
                    spool = self._moved(spool, client_id, transfer.offer)
            if spool is not None:
                spool.close()
        self._transfers.clear()
        if self._opening is not None:
            self._opening[1].close()

    def _window(self, now: float) -> int:
        active = sum(1 for one in self._transfers.values() if one.spool and now < one.at + _ACTIVE_SECONDS)
        return max(1, min(_WINDOW, _ALL_WINDOWS // max(1, active)))

    def _open(self, client_id: str, transfer: _Transfer, spool: Spool, now: float) -> None:
        """From now on it takes room."""
        transfer.spool, transfer.opened = spool, now
        self._taken += transfer.offer.size

    def _has_room(self, client_id: str, size: int) -> bool:
        _, left = self._left.get(client_id, ("", 0))  # in the same place
        return self._taken - left + size <= self._most_bytes

    def _make_room(self, client_id: str, size: int, now: float) -> bool:
        """Whether there is room for this; nothing of it is kept for who has sent nothing."""
        if self._has_room(client_id, size):
            return True
        for left in [name for name in self._left if name != client_id and not self._is_opening(name)]:
            self._drop_left(left)
            if self._has_room(client_id, size):
                return True
        idle = ((one.at, name) for name, one in self._transfers.items() if one.spool and now >= one.at + _IDLE_SECONDS)
        for _, name in sorted(idle):
            self.over(name)
            if self._has_room(client_id, size):
                return True
        return False

    def _drop_left(self, client_id: str) -> None:
        if client_id in self._left:
            self._taken -= self._left.pop(client_id)[1]
            if self._opening is not None and self._opening[0] == client_id:
                self._opening[1].close()
                self._opening = None
            remove(self._path(client_id))

    def _forget(self, now: float) -> None:
        """Offers that were answered and never followed by a part: nothing of them is here, and they come again."""
        waiting = sorted((one.at, name) for name, one in self._transfers.items() if one.spool is None)
        for at, name in waiting:
            if now < at + _IDLE_SECONDS and len(self._transfers) < _MOST_KNOWN:
                return
            del self._transfers[name]

    def _new_spool(self, client_id: str, offer: Offer) -> Spool:
        taken = sum(one.offer.size for one in self._transfers.values() if isinstance(one.spool, MemorySpool))
        if offer.size <= _IN_MEMORY_BYTES and taken + offer.size <= _ALL_IN_MEMORY_BYTES:
            return MemorySpool(offer.size)
        return self._on_disk(client_id, offer)

    def _moved(self, spool: MemorySpool, client_id: str, offer: Offer) -> Spool:
        moved = self._on_disk(client_id, offer)
        spool.move(moved)
        return moved

    def _is_opening(self, client_id: str) -> bool:
        return self._opening is not None and self._opening[0] == client_id and not self._opening[1].ready

    def _resumed(self, client_id: str, offer: Offer) -> Spool | None:
        """What an earlier process left of this update; None while it, or another one, is read again."""
        if self._opening is not None and self._opening[0] != client_id:
            opening = self._opening[1]
            if not opening.ready:
                return None
            opening.close()  # its client has not come back to it since
            self._opening = None
        if self._opening is None:
            self._opening = client_id, Opening(self._path(client_id), _key(offer), offer.size)
        opening = self._opening[1]
        if not opening.ready:
            return None
        self._opening = None
        spool = opening.take()
        self._taken -= self._left.pop(client_id)[1]
        return spool

    def _on_disk(self, client_id: str, offer: Offer) -> Spool:
        return FileSpool(self._path(client_id), _key(offer), offer.size)

    def _path(self, client_id: str) -> Path:
        return self._folder / f"{client_id}.body"


def spool_bytes(wanted: int | None, largest: int) -> int:
    """What updates in parts may take on the disk: what is wanted, or enough for four of the largest.

    Raises:
        ConfigError: not one of the largest has room, so nobody would ever be let in with it.

    """
    if wanted is None:
        return max(_USUAL_BYTES, 4 * largest)
    if wanted < largest:
        raise ConfigError(
            f"aggregator.spool_bytes is {wanted}, an update of this model may take {largest} bytes: "
            "give it that much, or leave it out"
        )
    return wanted


def _key(offer: Offer) -> str:
    return f"{offer.run} {offer.update.outbox_id} {offer.update.sequence} {offer.digest}"


def _later(offer: Offer) -> Later:
    return Later(update=offer.update, reason="busy", seconds=_BUSY_SECONDS)
