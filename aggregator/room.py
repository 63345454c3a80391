"""Where updates in parts lie, in memory or on the disk, and how much of both they may take."""

from __future__ import annotations

from pathlib import Path

from fedmq.aggregator.left_parts import LeftParts
from fedmq.aggregator.transfer import key_of
from fedmq.schemas.errors import ConfigError, StoreError
from fedmq.schemas.messages import Offer
from fedmq.transport.spool import FileSpool, MemorySpool, Spool

__all__ = ["Room", "spool_bytes"]

_IN_MEMORY_BYTES = 16 << 20  # of an update; a larger one goes to the disk from its first part on
_ALL_IN_MEMORY_BYTES = 64 << 20  # of all updates
_MOST_ON_DISK = 256  # of all updates, at a time: each has two files open, of perhaps 1,024, and a commit needs some
_MOST_PUT_OFF = 128  # on the disk, beyond which none goes there early
_USUAL_BYTES = 4 << 30  # for all updates on the disk


class Room:
    """What is open of all clients' updates, and what an earlier process left of them.

    An update takes its whole size from its first part on, so that what has begun to come has room to the end.

    Args:
        folder: of the files.
        most_bytes: what all updates together may take.

    Attributes:
        left: what an earlier process left, and nobody has come back to yet.
        taken: bytes that those take which are open.

    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.left = LeftParts(folder)
        self.taken = 0
        self._folder = folder
        self._most_bytes = most_bytes
        self._open: dict[tuple[str, str], tuple[int, Spool]] = {}  # of a client and key: its size, and what is there

    def fits(self, client_id: str, offer: Offer, *, without: int = 0) -> bool:
        """Whether there are bytes for this update, if so many others were given back."""
        # What is left of this update becomes its; if there is nothing of it, all of its client goes.
        left = self.left.of(client_id, key_of(offer)) or self.left.of(client_id)
        return self.taken - without + self.left.taken - left + offer.size <= self._most_bytes

    def has(self, client_id: str, offer: Offer) -> bool:
        """Whether there are bytes for this update, and files if it needs them."""
        in_memory = self._in_memory(offer.size) and not self.left.has(client_id, key_of(offer))
        return self.fits(client_id, offer) and (in_memory or self.has_files)

    @property
    def has_files(self) -> bool:
        """Whether one more update may be on the disk."""
        return self._on_disk < _MOST_ON_DISK

    @property
    def has_files_early(self) -> bool:
        """Whether one more update may go to the disk that could stay in memory."""
        return self._on_disk < _MOST_PUT_OFF

    def open(self, client_id: str, offer: Offer) -> Spool:
        """Where the parts of this update go; what was left of its client's others goes. Raises StoreError."""
        self.left.drop(client_id)
        in_memory = self._in_memory(offer.size)
        return self._taking(client_id, offer, MemorySpool(offer.size) if in_memory else self._file(client_id, offer))

    def resume(self, client_id: str, offer: Offer) -> Spool | None:
        """What is left of this update; None while it, or another one, is read again. Raises StoreError."""
        spool = self.left.resume(client_id, key_of(offer), offer.size)
        return None if spool is None else self._taking(client_id, offer, spool)

    def to_disk(self, client_id: str, offer: Offer, spool: MemorySpool) -> Spool:
        """The same update on the disk, in place of in memory. Raises StoreError: it is in memory still."""
        moved = self._file(client_id, offer)
        try:
            spool.move(moved)
        except StoreError:
            moved.close()
            moved.remove()
            raise
        self._open[client_id, key_of(offer)] = offer.size, moved
        return moved

    def let_go(self, client_id: str, offer: Offer) -> None:
        """Remove what is here of this update, if anything is."""
        size, spool = self._open.pop((client_id, key_of(offer)), (0, None))
        if spool is not None:
            self.taken -= size
            spool.close()
            spool.remove()

    def clear_left(self, client_id: str, offer: Offer) -> None:
        """Give up what was left of others' updates as far as this one needs their room."""
        for name in self.left.clients():
            if name != client_id and not self.left.is_opening(name) and not self.fits(client_id, offer):
                self.left.drop(name)

    def close(self) -> None:
        """Leave what is on the disk to the next process."""
        for _, spool in self._open.values():
            spool.close()
        self._open.clear()
        self.left.close()

    @property
    def _on_disk(self) -> int:
        return sum(isinstance(spool, FileSpool) for _, spool in self._open.values())

    def _in_memory(self, size: int) -> bool:
        """Whether an update of so many bytes begins there."""
        taken = sum(size for size, spool in self._open.values() if isinstance(spool, MemorySpool))
        return size <= _IN_MEMORY_BYTES and taken + size <= _ALL_IN_MEMORY_BYTES

    def _taking(self, client_id: str, offer: Offer, spool: Spool) -> Spool:
        self._open[client_id, key_of(offer)] = offer.size, spool
        self.taken += offer.size
        return spool

    def _file(self, client_id: str, offer: Offer) -> FileSpool:
        used = {spool.path for (name, _), (_, spool) in self._open.items()
                if name == client_id and isinstance(spool, FileSpool)}  # fmt: skip
        place = 1
        while (path := self._folder / f"{client_id}{f'.{place}' if place > 1 else ''}.body") in used:
            place += 1
        return FileSpool(path, key_of(offer), offer.size)


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
