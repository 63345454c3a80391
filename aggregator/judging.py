"""Large updates, judged in a thread one after the other, and those whose bytes are all here and wait for their turn.

Until a verdict is there the core is the thread's, and the service only reads and writes its link: so there is no lock,
and no moment in which half an update could be committed or shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fedmq.aggregator.aside import Aside
from fedmq.aggregator.judged import Judged
from fedmq.schemas.messages import Later, Missing, Offer

__all__ = ["Answer", "Ended", "Judging"]

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
        self._waiting: dict[str, Offer] = {}  # the last of each client

    @property
    def busy(self) -> bool:
        """Whether the core is the thread's."""
        return self._aside.busy

    @property
    def waits(self) -> bool:
        """Whether there is an update to begin with."""
        return bool(self._waiting)

    def wait(self, client_id: str, offer: Offer) -> None:
        """The bytes of this update are all here."""
        self._waiting[client_id] = offer

    def next(self) -> tuple[str, Offer]:
        """The update that has waited longest; it waits no more."""
        client_id = next(iter(self._waiting))
        return client_id, self._waiting.pop(client_id)

    def drop(self, client_id: str) -> None:
        """What this client has waiting is not judged."""
        self._waiting.pop(client_id, None)

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
