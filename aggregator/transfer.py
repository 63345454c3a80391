"""One update that comes in parts: what is here of it, and what its client was told last."""

from __future__ import annotations

from dataclasses import dataclass

from fedmq.schemas.messages import Missing, Offer, Part
from fedmq.schemas.parts import Coverage
from fedmq.transport.spool import Spool

__all__ = ["Transfer", "key_of"]

_RANGES = 64  # that an answer names
_LONGEST_SECONDS = 3600.0  # that an update takes which is not slow, or longer if it is large
_SLOWEST_BYTES = 16 << 10  # a second, at which it comes within that
_LOST_SECONDS = 600.0  # in all, in which nothing need come: links break


@dataclass(slots=True)
class Transfer:
    """One update on its way, or whole.

    Attributes:
        offer: the last one.
        heard: the number of the last message about it.
        at: when the first offer came, or the last part that brought something of it.
        spool: what is here; opened for the first part.
        opened: when that was, or when a later process went on with it.
        there: bytes of it that are here.
        window: that its client was told last.
        unanswered: parts since then.

    """

    offer: Offer
    heard: int | None
    at: float
    spool: Spool | None = None
    opened: float = 0.0
    there: int = 0
    window: int = 1
    unanswered: int = 0

    @property
    def key(self) -> str:
        """Which bytes of which update it is about."""
        return key_of(self.offer)

    @property
    def share(self) -> float:
        """How much of it is here, of 1."""
        return self.there / self.offer.size

    def is_slow(self, now: float) -> bool:
        """Whether so little of it has come that it would keep its room longer than anybody needs."""
        pace = min(_SLOWEST_BYTES, self.offer.size / _LONGEST_SECONDS)
        return self.there < pace * (now - self.opened - _LOST_SECONDS)

    def has(self, part: Part) -> bool:
        """Whether this is one of its parts."""
        return self.offer.update == part.update and self.offer.digest == part.digest

    def resumed(self, spool: Spool, now: float) -> None:
        """Go on with what is here of it from an earlier process."""
        self.spool, self.opened = spool, now
        self.there = sum(end - start for start, end in spool.coverage.there())

    def write(self, part: Part, body: memoryview, now: float) -> bool:
        """Keep a part; whether it brought something. Raises StoreError: the disk refuses."""
        assert self.spool is not None
        brought = sum(end - start for start, end in self.spool.coverage.lacks(part.offset, part.offset + len(body)))
        self.spool.write(part.offset, body)
        self.heard = max(part.number, self.heard or 0)
        self.unanswered += 1
        self.there += brought
        if brought:
            self.at = now
        return brought > 0

    def missing(self, window: int) -> Missing:
        """What is not here; so many parts may be on their way."""
        self.window, self.unanswered = window, 0
        coverage = self.spool.coverage if self.spool else Coverage(self.offer.size)
        ranges = tuple(zip(range(_RANGES), coverage.missing(), strict=False))
        return Missing(
            update=self.offer.update, ranges=tuple(found for _, found in ranges), window=window, heard=self.heard
        )


def key_of(offer: Offer) -> str:
    """Which bytes of which update an offer is about.

    And how many: what an update takes of the room is what it gives back, whatever is said of it later.
    """
    return f"{offer.run} {offer.update.outbox_id} {offer.update.sequence} {offer.digest} {offer.size}"
