"""Large updates, judged in a thread one after the other, and versions that are made of many.

Until that is done the core is the thread's, and the service only reads and writes its link: so there is no lock,
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
    """An update that a thread has judged.

    Attributes:
        before: how many verdicts the core had given until then.
        begun: when the thread began, in seconds of the run.

    """

    client_id: str
    offer: Offer
    before: int
    begun: float
    answer: Answer


class Judging:
    """One large update at a time.

    Args:
        done: called in the thread at the end, to wake the service.

    """

    def __init__(self, done: Callable[[], None]) -> None:
        self._aside: Aside[Judged | Missing | Later | None] = Aside("fedmq-judging", done)
        self._begun: tuple[str, Offer, int, float] | None = None

    @property
    def busy(self) -> bool:
        """Whether the core is the thread's."""
        return self._aside.busy

    def start(
        self, client_id: str, offer: Offer, before: int, now: float, judge: Callable[[], Judged | Missing | Later]
    ) -> None:
        """Begin."""
        self._begun = client_id, offer, before, now
        self._aside.start(judge)

    def start_tick(self, tick: Callable[[], None]) -> None:
        """Begin what time alone has brought."""
        self._aside.start(tick)

    def take(self, timeout: float) -> Ended | None:
        """What was judged, once, if that takes no more than `timeout` seconds; raises what a tick raised."""
        answer = self._aside.take(timeout)
        if self._begun is None and isinstance(answer, Exception):
            raise answer
        if answer is None or self._begun is None:
            return None
        begun, self._begun = self._begun, None
        return Ended(*begun, answer)
