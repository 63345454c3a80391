"""How many updates of one client may count: so many a minute, and so many a day."""

from __future__ import annotations

from dataclasses import dataclass

from fedmq.aggregator.buckets import Buckets
from fedmq.schemas.errors import LaterReason

__all__ = ["Allowance", "Allowances"]

DAY_SECONDS = 86_400.0
_LATEST = 3600.0  # seconds until a client asks again: the limit may be another by then


@dataclass(frozen=True, slots=True)
class Allowance:
    """What each client has.

    Attributes:
        per_minute: accepted updates, as a rate: as many may come at once, and one more every 60 / per_minute seconds.
        per_day: accepted updates within one day of the run; days begin with it, and stand still while it does.

    """

    per_minute: float | None = None
    per_day: int | None = None


class Allowances:
    """What clients have had of theirs. What they had today is a part of the durable state.

    Attributes:
        today: the day that is counted, and the accepted updates of each client in it.

    """

    def __init__(self) -> None:
        self.today: tuple[int, dict[str, int]] = 0, {}
        self._buckets: Buckets | None = None

    def wait(self, allowance: Allowance, client_id: str, now: float) -> tuple[LaterReason, float] | None:
        """Why this client's next update has to wait, and how many seconds; None if it has not."""
        if allowance.per_day is not None:
            day, counts = self.today
            if day == int(now // DAY_SECONDS) and counts.get(client_id, 0) >= allowance.per_day:
                return "quota", min(_LATEST, (day + 1) * DAY_SECONDS - now)
        if allowance.per_minute is not None:
            seconds = self._rates(allowance.per_minute).seconds(client_id, now)
            if seconds > 0:
                return "rate", min(_LATEST, seconds)
        return None

    def count(self, allowance: Allowance, client_id: str, now: float) -> None:
        """An update of this client was accepted."""
        if allowance.per_day is not None:
            day = int(now // DAY_SECONDS)
            if self.today[0] != day:
                self.today = day, {}
            counts = self.today[1]
            counts[client_id] = counts.get(client_id, 0) + 1
        if allowance.per_minute is not None:
            self._rates(allowance.per_minute).take(client_id, now)

    def _rates(self, per_minute: float) -> Buckets:
        if self._buckets is None:
            self._buckets = Buckets(per_minute / 60.0, max(1.0, per_minute))
        return self._buckets
