"""One update that comes in parts: what is here of it, and what its client was told last."""

from __future__ import annotations

from dataclasses import dataclass

from fedmq.schemas.messages import Missing, Offer, Part
from fedmq.schemas.parts import Coverage
from fedmq.transport.spool import Spool

__all__ = ["Transfer", "key_of"]

_RANGES = 64  # that an answer names


@dataclass(slots=True)
class Transfer:
    """One update on its way, or whole.

    Attributes:
        offer: the last one.
        heard: the number of the last message about it.
        at: when the first offer or the last part of it came.
        spool: what is here; opened for the first part.
        opened: when that was.
        window: that its client was told last.
        unanswered: parts since then.

    """

    offer: Offer
    heard: int | None
    at: float
    spool: Spool | None = None
    opened: float = 0.0
    window: int = 1
    unanswered: int = 0

    @property
    def key(self) -> str:
        """Which bytes of which update it is about."""
        return key_of(self.offer)

    def has(self, part: Part) -> bool:
        """Whether this is one of its parts."""
        return self.offer.update == part.update and self.offer.digest == part.digest

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
