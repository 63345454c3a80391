"""Large updates, judged in a thread one after the other, and what waits for its turn: whole ones, and offers of others.

Until a verdict is there the core is the thread's, and the service only reads and writes its link: so there is no lock,
and no moment in which half an update could be committed or shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fedmq.aggregator.aside import Aside
from fedmq.aggregator.judged import Judged
from fedmq.schemas.messages import Later, Missing, Offer, UpdateId

__all__ = ["Answer", "Ended", "Judging"]

_MOST_WAITING = 1024  # offers, which are small

Answer = Judged | Missing | Later | Exception
"""What judging comes to; an exception is a fault of ours."""


class Ended(NamedTuple):
    """An update that a thread has judged; `before` is how many verdicts the core had given until then."""

    client_id: str
    offer: Offer
    before: int
    answer: Answer


class Judging:
    """One large update at a time.

    Args:
        done: called in the thread at the end, to wake the service.

    """

    def __init__(self, done: Callable[[], None]) -> None:
        self._aside: Aside[Judged | Missing | Later] = Aside("fedmq-judging", done)
        self._begun: tuple[str, Offer, int] | None = None
        self._waiting: dict[tuple[str, UpdateId], Offer] = {}

    @property
    def busy(self) -> bool:
        """Whether the core is the thread's."""
        return self._aside.busy

    @property
    def waits(self) -> bool:
        """Whether there is one to begin with."""
        return bool(self._waiting)

    def wait(self, client_id: str, offer: Offer) -> bool:
        """Have this offer's turn come; whether there is a place for it."""
        if len(self._waiting) >= _MOST_WAITING and (client_id, offer.update) not in self._waiting:
            return False
        self._waiting[client_id, offer.update] = offer
        return True

    def next(self) -> tuple[str, Offer]:
        """The offer that has waited longest; it waits no more."""
        client_id, update = next(iter(self._waiting))
        return client_id, self._waiting.pop((client_id, update))

    def drop(self, client_id: str) -> None:
        """What this client has waiting is not judged."""
        self._waiting = {key: offer for key, offer in self._waiting.items() if key[0] != client_id}

    def clear(self) -> None:
        """Whoever waits will offer again."""
        self._waiting.clear()

    def start(self, client_id: str, offer: Offer, before: int, judge: Callable[[], Judged | Missing | Later]) -> None:
        """Begin."""
        self._begun = client_id, offer, before
        self._aside.start(judge)

    def take(self, timeout: float) -> Ended | None:
        """What was judged, once, if that takes no more than `timeout` seconds."""
        answer = self._aside.take(timeout)
        if answer is None or self._begun is None:
            return None
        begun, self._begun = self._begun, None
        return Ended(*begun, answer)
