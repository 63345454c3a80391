"""Updates that come in parts, on their way: what is here of each, and how fast its client may send.

They promise nothing: an update counts when it is judged, and it is judged when it is whole. What takes longer than a
moment goes to the disk, and survives a restart as far as the disk has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fedmq.aggregator.left_parts import LeftParts
from fedmq.aggregator.transfer import Transfer, key_of
from fedmq.schemas.errors import ConfigError, ProtocolError, StoreError
from fedmq.schemas.messages import Later, Missing, Offer, Part
from fedmq.schemas.parts import GRAIN
from fedmq.transport.spool import FileSpool, MemorySpool, Spool

__all__ = ["Transfers", "spool_bytes"]

_MOST = 3  # updates of one client: while two that are whole wait for a commit, the next one comes
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
_MOST_ON_DISK = 256  # of all updates, at a time: each has two files open, of perhaps 1,024, and a commit needs some
_MOST_PUT_OFF = 128  # on the disk, beyond which none goes there early
_USUAL_BYTES = 4 << 30  # for all updates on the disk


class Transfers:
    """One update of each client that comes, and those before it that are whole and whose verdict is in no commit yet.

    Args:
        folder: of the spools.
        most_bytes: what all updates together may take there.

    Attributes:
        begun: how many have come or begun to come. Who sends nothing begins no more than one in two minutes.

    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.begun = 0
        self._folder = folder
        self._most_bytes = most_bytes
        self._coming: dict[str, Transfer] = {}
        self._whole: dict[str, list[Transfer]] = {}  # the oldest first
        self._judged: list[tuple[str, Transfer]] = []  # whose verdict is in no commit yet
        self._committing: list[tuple[str, Transfer]] = []  # whose verdict is in the commit that is being written
        self._left = LeftParts(folder)
        self._taken = 0  # bytes, of all with a part here
        self._first_at: float | None = None
        self._more_until = float("-inf")  # of an update that is half here most likely comes
        self._awaited = False  # a client soon has no place for another update before the next commit

    @property
    def coming_until(self) -> float:
        """The time until which a commit may wait for more of an update that is half here."""
        return float("-inf") if self._awaited else self._more_until

    def ask(self, client_id: str, offer: Offer, now: float) -> Missing | Later | Spool:
        """What to answer to an offer without its bytes, which could be admitted; what has the bytes if all are here."""
        key, transfer = key_of(offer), self._coming.get(client_id)
        for whole in self._whole.get(client_id, ()):
            if whole.key == key:
                assert whole.spool is not None
                return whole.spool
        self._first_at = now if self._first_at is None else self._first_at
        comes = transfer is not None and transfer.key == key
        resumes = self._left.has(client_id, key)
        may_come_back = now < self._first_at + _LEFT_SECONDS or self._left.is_opening(client_id)
        if self._left.of(client_id) and may_come_back and not (comes or resumes):
            return _later(offer)  # the one that is half here may be offered next
        if transfer is not None and not comes:
            if now < transfer.at + _IDLE_SECONDS:
                return _later(offer)
            self._drop(client_id, transfer)
            transfer = None
        if transfer is None and not self._has_place(client_id, now):
            return _later(offer)
        if (transfer is None or transfer.spool is None) and not self._make_room(client_id, offer, now):
            return _later(offer)
        resumed = self._left.resume(client_id, key, offer.size) if resumes else None
        if resumes and resumed is None:
            return _later(offer)
        if transfer is None:
            if len(self._coming) >= _MOST_KNOWN:
                self._forget(now)
            transfer = self._coming[client_id] = Transfer(offer, offer.number, now)
            self.begun += 1
        if resumed is not None:
            self._open(transfer, resumed, now)
        transfer.offer, transfer.heard = offer, offer.number
        if transfer.spool is not None and transfer.spool.coverage.complete:
            self._set_aside(client_id)
            return transfer.spool
        return transfer.missing(self._window(now))

    def take(self, client_id: str, part: Part, body: memoryview, now: float) -> Missing | Later | Offer | None:
        """Keep a part; its offer when the update is whole, what is missing now and then, or nothing to say.

        Later if it is the first, and there is no room for the others any more.

        Raises:
            ProtocolError: the part cannot be one of this update.
            StoreError: the disk refuses.

        """
        transfer = self._coming.get(client_id)
        if transfer is None or not transfer.has(part):
            return None  # its offer will come, or its verdict is on the way
        end = part.offset + len(body)
        size = transfer.offer.size
        if end > size or not body or part.offset % GRAIN or (end % GRAIN and end < size):
            raise ProtocolError("malformed", f"a part of {len(body)} bytes at {part.offset} of an update of {size}")
        if transfer.spool is None:
            if not self._has_room(client_id, transfer.offer):
                return _later(transfer.offer)
            self._left.drop(client_id)  # another update
            self._open(transfer, self._new_spool(client_id, transfer.offer), now)
            assert transfer.spool is not None
        elif (
            isinstance(transfer.spool, MemorySpool) and now > transfer.opened + _IN_MEMORY_SECONDS and self._has_files()
        ):
            transfer.spool = self._moved(transfer.spool, client_id, transfer.offer)
        transfer.spool.write(part.offset, body)
        transfer.heard, transfer.at = max(part.number, transfer.heard or 0), now
        transfer.unanswered += 1
        if transfer.spool.coverage.complete:
            self._set_aside(client_id)
            begun = (one.at for one in self._coming.values() if one.spool)
            self._more_until = max(begun, default=float("-inf")) + _NEXT_PART_SECONDS
            return transfer.offer
        self._more_until = now + _NEXT_PART_SECONDS
        # Half of the window that its client knows of: a larger one of now it might never fill.
        return transfer.missing(self._window(now)) if transfer.unanswered >= max(1, transfer.window // 2) else None

    def lacks(self, client_id: str, part: Part, size: int) -> bool:
        """Whether a part of so many bytes brings something that is not here."""
        transfer = self._coming.get(client_id)
        if transfer is None or not transfer.has(part):
            return False
        return transfer.spool is None or bool(transfer.spool.coverage.lacks(part.offset, part.offset + size))

    def put_off(self, client_id: str, offer: Offer) -> None:
        """An update waits for a verdict; if all of it is here, a crash may not cost it, as far as the disk has room."""
        has_files = self._has_files(_MOST_PUT_OFF)
        for whole in self._whole.get(client_id, ()):
            if whole.key == key_of(offer) and isinstance(whole.spool, MemorySpool) and has_files:
                with suppress(StoreError):  # then it comes again
                    whole.spool = self._moved(whole.spool, client_id, offer)

    def judged(self, client_id: str, offer: Offer) -> None:
        """An update has its verdict; its bytes stay until that is committed."""
        if client_id not in self._coming and client_id not in self._whole:
            return  # as of all clients whose updates fit into a message
        self._judged += [(client_id, one) for one in self._of(client_id) if one.key == key_of(offer)]
        if len(self._whole.get(client_id, ())) >= _MOST - 1:
            self._awaited = True

    def committing(self) -> None:
        """All verdicts until now are in the commit that begins."""
        self._committing += self._judged
        self._judged.clear()
        self._awaited = False

    def committed(self) -> None:
        """The commit that had begun is on the disk; verdicts that were given meanwhile are not."""
        for client_id, transfer in self._committing:
            self._drop(client_id, transfer)
        self._committing.clear()

    def forgotten(self) -> None:
        """The verdicts since the last commit are void: their updates are judged again."""
        self._judged.clear()
        self._committing.clear()

    def over(self, client_id: str) -> None:
        """Give all of this client up."""
        for transfer in self._of(client_id):
            self._drop(client_id, transfer)

    def close(self) -> None:
        """Leave to the next process what is here."""
        for client_id, transfer in list(self._all()):
            if isinstance(transfer.spool, MemorySpool):
                with suppress(StoreError):  # then it comes again
                    transfer.spool = self._moved(transfer.spool, client_id, transfer.offer)
        for _, transfer in self._all():
            if transfer.spool is not None:
                transfer.spool.close()
        self._coming.clear()
        self._whole.clear()
        self._left.close()

    def _all(self) -> Iterator[tuple[str, Transfer]]:
        yield from self._coming.items()
        for client_id, transfers in self._whole.items():
            for transfer in transfers:
                yield client_id, transfer

    def _of(self, client_id: str) -> list[Transfer]:
        coming = self._coming.get(client_id)
        return [*self._whole.get(client_id, ()), *([coming] if coming else [])]

    def _set_aside(self, client_id: str) -> None:
        """The one that came is whole: the next may come while it waits for its verdict and the commit of that."""
        self._whole.setdefault(client_id, []).append(self._coming.pop(client_id))

    def _drop(self, client_id: str, transfer: Transfer) -> None:
        """Let it go, if it is still here."""
        whole = self._whole.get(client_id, [])
        if self._coming.get(client_id) is transfer:
            del self._coming[client_id]
        elif any(one is transfer for one in whole):
            self._whole[client_id] = [one for one in whole if one is not transfer]
            if not self._whole[client_id]:
                del self._whole[client_id]
        else:
            return
        if transfer.spool is not None:
            self._taken -= transfer.offer.size
            transfer.spool.close()
            transfer.spool.remove()

    def _window(self, now: float) -> int:
        active = {client_id for client_id, one in self._all() if one.spool and now < one.at + _ACTIVE_SECONDS}
        return max(1, min(_WINDOW, _ALL_WINDOWS // max(1, len(active))))

    def _open(self, transfer: Transfer, spool: Spool, now: float) -> None:
        """From now on it takes room."""
        transfer.spool, transfer.opened = spool, now
        self._taken += transfer.offer.size

    def _has_place(self, client_id: str, now: float) -> bool:
        """Whether one more of this client may come beside those that are whole."""
        whole = self._whole.get(client_id, [])
        if len(whole) >= _MOST and now >= whole[0].at + _IDLE_SECONDS:
            self._drop(client_id, whole[0])
            return True
        return len(whole) < _MOST

    def _has_room(self, client_id: str, offer: Offer) -> bool:
        in_memory = self._in_memory(offer.size) and not self._left.has(client_id, key_of(offer))
        return self._fits(client_id, offer) and (in_memory or self._has_files())

    def _fits(self, client_id: str, offer: Offer) -> bool:
        # What is left of this update becomes its; if there is nothing of it, all of its client goes.
        left = self._left.of(client_id, key_of(offer)) or self._left.of(client_id)
        return self._taken + self._left.taken - left + offer.size <= self._most_bytes

    def _has_files(self, most: int = _MOST_ON_DISK) -> bool:
        return sum(isinstance(one.spool, FileSpool) for _, one in self._all()) < most

    def _in_memory(self, size: int) -> bool:
        """Whether an update of so many bytes begins there."""
        taken = sum(one.offer.size for _, one in self._all() if isinstance(one.spool, MemorySpool))
        return size <= _IN_MEMORY_BYTES and taken + size <= _ALL_IN_MEMORY_BYTES

    def _make_room(self, client_id: str, offer: Offer, now: float) -> bool:
        """Whether there is room for this; nothing of it is kept for who has sent nothing."""
        if self._has_room(client_id, offer):
            return True
        for name in self._left.clients():
            if name != client_id and not self._left.is_opening(name) and not self._fits(client_id, offer):
                self._left.drop(name)
        if self._has_room(client_id, offer):
            return True
        idle = [(one.at, name, one) for name, one in self._all() if one.spool and now >= one.at + _IDLE_SECONDS]
        for _, name, one in sorted(idle, key=lambda item: item[:2]):
            if isinstance(one.spool, FileSpool) or not self._fits(client_id, offer):
                self._drop(name, one)
                if self._has_room(client_id, offer):
                    return True
        return False

    def _forget(self, now: float) -> None:
        """Offers that were answered and never followed by a part: nothing of them is here, and they come again."""
        waiting = sorted((one.at, name) for name, one in self._coming.items() if one.spool is None)
        for at, name in waiting:
            if now < at + _IDLE_SECONDS and len(self._coming) < _MOST_KNOWN:
                return
            del self._coming[name]

    def _new_spool(self, client_id: str, offer: Offer) -> Spool:
        return MemorySpool(offer.size) if self._in_memory(offer.size) else self._file(client_id, offer)

    def _moved(self, spool: MemorySpool, client_id: str, offer: Offer) -> Spool:
        moved = self._file(client_id, offer)
        spool.move(moved)
        return moved

    def _file(self, client_id: str, offer: Offer) -> Spool:
        used = {one.spool.path for one in self._of(client_id) if isinstance(one.spool, FileSpool)}
        paths = (self._folder / f"{client_id}{place}.body" for place in ("", *(f".{n}" for n in range(2, _MOST + 1))))
        return FileSpool(next(path for path in paths if path not in used), key_of(offer), offer.size)


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


def _later(offer: Offer) -> Later:
    return Later(update=offer.update, reason="busy", seconds=_BUSY_SECONDS)
