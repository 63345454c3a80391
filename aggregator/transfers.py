"""Updates that come in parts, on their way: what is here of each, and how fast its client may send.

They promise nothing: an update counts when it is judged, and it is judged when it is whole. What takes longer than a
moment goes to the disk, and survives a restart as far as the disk has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from fedmq.aggregator.room import Room
from fedmq.aggregator.transfer import Transfer, key_of
from fedmq.schemas.errors import ProtocolError, StoreError
from fedmq.schemas.messages import Later, Missing, Offer, Part
from fedmq.schemas.parts import GRAIN
from fedmq.transport.spool import FileSpool, MemorySpool, Spool

__all__ = ["Transfers"]

_MOST = 3  # updates of one client: while two that are whole wait for a commit, the next one comes
_WINDOW = 8  # parts of one client on their way at most
_ALL_WINDOWS = 16  # parts of all together, if that leaves each of them one: a broker's queue may hold no more than 20
_ACTIVE_SECONDS = 10.0  # since its last part, that a client has its share of the windows
_NEXT_PART_SECONDS = 0.03  # after a part, in which the next one most likely comes
_IDLE_SECONDS = 120.0  # after which a transfer may be given up for another one
_SLOW_SECONDS = 120.0  # between two times that slow ones are given up for one that waits: a few shall get through
_YIELD_SECONDS = 60.0  # in which a client that has made room takes none: the other shall come first
_BUSY_SECONDS = 5.0  # until a client that found no room offers again
_LEFT_SECONDS = 10.0  # after a restart, in which a client may come back to what is half here of it
_MOST_KNOWN = 1024  # offers without bytes; beyond it, those are forgotten that nothing has followed for longest
_IN_MEMORY_SECONDS = 2.0  # since its first part; then a crash may cost no more of it


class Transfers:
    """One update of each client that comes, and those before it that are whole and whose verdict is in no commit yet.

    Args:
        room: where they lie.

    Attributes:
        begun: how many have come or begun to come. Who sends nothing begins no more than one in two minutes.

    """

    def __init__(self, room: Room) -> None:
        self.begun = 0
        self._room = room
        self._coming: dict[str, Transfer] = {}
        self._whole: dict[str, list[Transfer]] = {}  # the oldest first
        self._judged: list[tuple[str, Transfer]] = []  # whose verdict is in no commit yet
        self._committing: list[tuple[str, Transfer]] = []  # whose verdict is in the commit that is being written
        self._yields: dict[str, float] = {}  # clients that have made room for others, and until when they take none
        self._slow_at = float("-inf")  # when slow ones were given up last
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
        left = self._room.left
        resumes = left.has(client_id, key)
        may_come_back = now < self._first_at + _LEFT_SECONDS or left.is_opening(client_id)
        if left.of(client_id) and may_come_back and not (comes or resumes):
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
        resumed = self._room.resume(client_id, offer) if resumes else None
        if resumes and resumed is None:
            return _later(offer)
        if transfer is None:
            if len(self._coming) >= _MOST_KNOWN:
                self._forget(now)
            transfer = self._coming[client_id] = Transfer(offer, offer.number, now)
            self.begun += 1
        if resumed is not None:
            transfer.resumed(resumed, now)
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
            if not self._room.has(client_id, transfer.offer):
                return _later(transfer.offer)
            transfer.spool, transfer.opened = self._room.open(client_id, transfer.offer), now
        elif (
            isinstance(transfer.spool, MemorySpool)
            and now > transfer.opened + _IN_MEMORY_SECONDS
            and self._room.has_files
        ):
            transfer.spool = self._room.to_disk(client_id, transfer.offer, transfer.spool)
        brought = transfer.write(part, body, now)
        if transfer.spool.coverage.complete:
            self._set_aside(client_id)
            begun = (one.at for one in self._coming.values() if one.spool)
            self._more_until = max(begun, default=float("-inf")) + _NEXT_PART_SECONDS
            return transfer.offer
        if brought:
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
        for whole in self._whole.get(client_id, ()):
            if whole.key == key_of(offer) and isinstance(whole.spool, MemorySpool) and self._room.has_files_early:
                with suppress(StoreError):  # then it comes again
                    whole.spool = self._room.to_disk(client_id, offer, whole.spool)

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
                    transfer.spool = self._room.to_disk(client_id, transfer.offer, transfer.spool)
        self._room.close()
        self._coming.clear()
        self._whole.clear()

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
        self._room.let_go(client_id, transfer.offer)

    def _window(self, now: float) -> int:
        active = {client_id for client_id, one in self._all() if one.spool and now < one.at + _ACTIVE_SECONDS}
        return max(1, min(_WINDOW, _ALL_WINDOWS // max(1, len(active))))

    def _has_place(self, client_id: str, now: float) -> bool:
        """Whether one more of this client may come beside those that are whole."""
        whole = self._whole.get(client_id, [])
        if len(whole) >= _MOST and now >= whole[0].at + _IDLE_SECONDS:
            self._drop(client_id, whole[0])
            return True
        return len(whole) < _MOST

    def _make_room(self, client_id: str, offer: Offer, now: float) -> bool:
        """Whether there is room for this; nothing of it is kept for who has sent nothing."""
        if now < self._yields.get(client_id, now):
            return False
        if self._room.has(client_id, offer):
            return True
        self._room.clear_left(client_id, offer)
        if self._room.has(client_id, offer):
            return True
        idle = [(one.at, name, one) for name, one in self._all() if one.spool and now >= one.at + _IDLE_SECONDS]
        for _, name, one in sorted(idle, key=lambda item: item[:2]):
            if isinstance(one.spool, FileSpool) or not self._room.fits(client_id, offer):
                self._give_up(name, one, client_id, now)
                if self._room.has(client_id, offer):
                    return True
        if now >= self._slow_at + _SLOW_SECONDS:
            for name, one in self._slow(client_id, offer, now):
                self._slow_at = now
                self._give_up(name, one, client_id, now)
        return self._room.has(client_id, offer)

    def _slow(self, client_id: str, offer: Offer, now: float) -> list[tuple[str, Transfer]]:
        """As many slow ones as make room for this, those first that have the least; none if they are too few."""
        lacks_bytes = not self._room.fits(client_id, offer)
        slow = [
            (one.share, name, one)
            for name, one in self._coming.items()
            if one.spool and one.is_slow(now) and (lacks_bytes or isinstance(one.spool, FileSpool))
        ]
        given, freed = [], 0
        for _, name, one in sorted(slow, key=lambda item: item[:2]):
            given.append((name, one))
            freed += one.offer.size
            if self._room.fits(client_id, offer, without=freed):
                return given
        return []

    def _give_up(self, client_id: str, transfer: Transfer, waiting: str, now: float) -> None:
        """Give one up for a client that waits, which shall come before this client's next."""
        self._drop(client_id, transfer)
        self._yields = {name: until for name, until in self._yields.items() if now < until}
        if client_id != waiting:
            self._yields[client_id] = now + _YIELD_SECONDS

    def _forget(self, now: float) -> None:
        """Offers that were answered and never followed by a part: nothing of them is here, and they come again."""
        waiting = sorted((one.at, name) for name, one in self._coming.items() if one.spool is None)
        for at, name in waiting:
            if now < at + _IDLE_SECONDS and len(self._coming) < _MOST_KNOWN:
                return
            del self._coming[name]


def _later(offer: Offer) -> Later:
    return Later(update=offer.update, reason="busy", seconds=_BUSY_SECONDS)
