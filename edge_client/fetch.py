"""How a device takes models that come in parts: one at a time, and what it has begun it goes on with.

A newer one does not interrupt it: who did so on a slow link would never have any. Only when its slot is overwritten it
turns to another. When the same lies elsewhere, since a broker has lost it, it goes on there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from fedmq.edge_client.download import Download
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import Head, Need, SnapshotPart
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.transport.link import Link

__all__ = ["Fetch"]

log = logging.getLogger("fedmq.client")

_SLOTS = 2  # of the protocol
_LOOK_SECONDS = 30.0  # until a slot that shows nothing is given up


@dataclass(slots=True)
class _Look:
    """A slot whose head is asked for, after a download from this or another slot was lost."""

    slot: int
    instead_of: int  # the version that was lost
    until: float
    drained: bool = False


class Fetch:
    """The download of a device.

    Args:
        link: to the broker.
        topics: of the federation.
        client_id: this device's.
        path: of the file that models come into; None keeps them in memory.
        window: parts that are waited for at a time.

    """

    def __init__(self, link: Link, topics: Topics, client_id: str, path: Path | None, window: int) -> None:
        self._link = link
        self._topics = topics
        self._client_id = client_id
        self._path = path
        self._window = window
        self._download: Download | None = None
        self._most_bytes = 0  # of a snapshot, whichever slot it lies in
        self._losses = 0  # downloads that were overwritten, since the last one that was not
        self._looking: _Look | None = None

    def want(self, head: Head, most_bytes: int, now: float) -> None:
        """Take this one; or go on with the one before, unless that is the same and lies elsewhere now.

        Args:
            head: of a snapshot in parts.
            most_bytes: what a snapshot of this device's model can have; this one has no more.
            now: seconds.

        Raises:
            StoreError: the disk refuses.

        """
        self._most_bytes = most_bytes
        download = self._download
        going_on = download is not None and not download.lost and download.head.run == head.run
        if download is not None and (download.complete or _same(download.head, head)):
            going_on = False
        if self._looking is None and not going_on:
            self._begin(head, now)
        else:
            log.debug("not taking client=%s version=%d: another is on its way", self._client_id, head.version)

    def take(self, topic: str, payload: bytes, now: float) -> bool:
        """A message on a topic of parts; False if it is on another.

        Raises:
            ProtocolError: it cannot be read.
            StoreError: the disk refuses.

        """
        place = self._topics.part_of(topic)
        if place is not None:
            if self._download is not None and not self._download.lost:
                message, body = decode(payload, SnapshotPart)
                self._download.take(*place, message, body, now)
                self._listen(now)
            return True
        look = self._looking
        if look is None or topic != self._topics.slot(look.slot):
            return False
        head, _ = decode(payload, Head)
        if head.size > self._most_bytes:
            raise ProtocolError(
                "malformed", f"a head of {head.size} bytes in slot {look.slot}, expected {self._most_bytes} at most"
            )
        if not look.drained:
            # It had waited behind parts that nobody wants any more. The next comes at once, and is as new as it says.
            look.drained = True
            self._link.subscribe(topic)
        elif head.slot is not None and head.part_bytes is not None and head.version != look.instead_of:
            self._begin(head, now)
        return True

    def ready(self) -> tuple[Head, memoryview] | None:
        """The head and the encoded weights of the last download, if it is complete."""
        download = self._download
        return (download.head, download.body()) if download is not None and download.complete else None

    def receiving(self) -> tuple[int, int, int] | None:
        """The version that is on its way, how many of its bytes are here, and how many it has; None if none is."""
        download = self._download
        if download is None or download.lost or download.complete:
            return None
        return download.head.version, download.came, download.head.size

    def digest(self) -> str:
        """The SHA-256 of what `ready` gives, in hex; most of it was reckoned while the parts came.

        Raises:
            StoreError: the disk refuses.

        """
        assert self._download is not None
        return self._download.digest()

    def discard(self) -> None:
        """What came is not what was announced: take it anew when it is announced again."""
        self._drop(remove=True)

    def rest(self) -> None:
        """Take nothing more for now; what is on the disk stays."""
        self._drop()
        if self._looking is not None:
            self._link.unsubscribe(self._topics.slot(self._looking.slot))
            self._looking = None

    def is_of(self, head: Head) -> bool:
        """Whether the download is of this snapshot: done, or from where it lies."""
        download = self._download
        if download is None or download.lost or not _same(download.head, head):
            return False
        place = download.head.slot, download.head.part_bytes
        return download.complete or place == (head.slot, head.part_bytes)

    def connected(self, now: float) -> None:
        """Subscribe again to what is waited for."""
        if self._looking is not None:
            self._look(self._looking.slot, self._looking.instead_of, now)
        elif self._download is not None:
            self._download.connected()
            self._listen(now)

    def tick(self, now: float) -> bool:
        """Ask for what does not come; whether a snapshot is found to be whole that an earlier process has begun.

        Raises:
            StoreError: the disk refuses.

        """
        found = self._download is not None and self._download.open(now)
        if found:
            self._listen(now)
        self._ask(now)
        return found and self._download is not None and self._download.complete

    def _ask(self, now: float) -> None:
        if self._looking is not None and now >= self._looking.until:
            self._looking = None  # the next head will do
        parts = self._download.ask(now) if self._download is not None else None
        if parts is None or self._download is None:
            return
        self._say(self._download.head, parts[:64])
        if parts:  # also of the broker, which may have lost the subscriptions
            self._download.connected()
            self._listen(now)

    def deadline(self) -> float | None:
        """When `tick` is due."""
        if self._looking is not None:
            return self._looking.until
        return self._download.deadline() if self._download is not None else None

    def close(self) -> None:
        """Let go; a later process goes on with what is here."""
        if self._download is not None:
            self._download.close()

    def _begin(self, head: Head, now: float) -> None:
        self._drop()
        if self._looking is not None:
            self._link.unsubscribe(self._topics.slot(self._looking.slot))
            self._looking = None
        self._download = Download(head, self._path, self._window, now)
        log.info("receiving client=%s version=%d bytes=%d", self._client_id, head.version, head.size)
        self.tick(now)  # its slot is kept from now on
        self._listen(now)

    def _listen(self, now: float) -> None:
        download = self._download
        assert download is not None
        if download.lost:
            # The same slot, which has a newer one; or every other time the other slot, which may be kept for the slow.
            self._losses += 1
            slot = download.head.slot or 0
            self._drop()
            self._look(slot if self._losses % 2 else (slot + 1) % _SLOTS, download.head.version, now)
            return
        new, done = download.listen()
        slot = download.head.slot or 0
        if done:
            self._link.unsubscribe(*(self._topics.part(slot, part) for part in done))
        if new:
            self._link.subscribe(*(self._topics.part(slot, part) for part in new))
        if download.complete:
            self._losses = 0
            log.info(
                "received client=%s version=%d bytes=%d", self._client_id, download.head.version, download.head.size
            )
            self._say(download.head, done=True)

    def _look(self, slot: int, instead_of: int, now: float) -> None:
        self._looking = _Look(slot, instead_of, now + _LOOK_SECONDS)
        self._link.subscribe(self._topics.slot(slot))

    def _say(self, head: Head, parts: tuple[int, ...] = (), *, done: bool = False) -> None:
        need = Need(run=head.run, version=head.version, parts=parts, done=done)
        self._link.publish(self._topics.update(self._client_id), encode(need))

    def _drop(self, *, remove: bool = False) -> None:
        download, self._download = self._download, None
        if download is None:
            return
        if not download.complete:
            self._say(download.head, done=True)
        if download.listening:
            slot = download.head.slot or 0
            self._link.unsubscribe(*(self._topics.part(slot, part) for part in download.listening))
        download.close(remove=remove)


def _same(one: Head, other: Head) -> bool:
    """Whether both are of the same weights, wherever they lie."""
    return (one.run, one.version, one.digest) == (other.run, other.version, other.digest)
