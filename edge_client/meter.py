"""Reads what the link has carried, and keeps what of it counts against this day."""

from __future__ import annotations

import time
from collections.abc import Callable

from fedmq.edge_client.budget import Allowance, Budget, Shortage
from fedmq.edge_client.outbox import Outbox

__all__ = ["Meter"]


class Meter:
    """One device's budget, counted.

    Args:
        carried: bytes that the link has sent and received so far.
        outbox: where they are kept, so that a restart costs nothing and saves nothing.
        uplink, downlink: bytes a day; None for no limit.
        wall: seconds since 1970.

    """

    def __init__(
        self,
        carried: Callable[[], tuple[int, int]],
        outbox: Outbox,
        uplink: int | None = None,
        downlink: int | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._carried = carried
        self._outbox = outbox
        self._wall = wall
        self._budget = Budget(uplink, downlink, outbox.spent())

    def read(self, now: float) -> Allowance:
        """What is left of this day; `now` in the owner's seconds.

        Raises:
            StoreError: the disk refuses.

        """
        if not self._budget.limited:
            return Allowance()
        wall = self._wall()
        self._budget.count(*self._carried(), wall)
        spent = self._budget.to_keep()
        if spent is not None:
            self._outbox.keep_spent(spent)
        return self._budget.allowance(wall, now)

    def today(self) -> dict[str, int]:
        """For the status: what was spent; empty without a budget."""
        if not self._budget.limited:
            return {}
        return {"uplink_today": self._budget.spent.uplink, "downlink_today": self._budget.spent.downlink}

    def sentence(self, shortage: Shortage) -> str:
        """What is short, and what can be done."""
        return self._budget.sentence(shortage)

    def never(self, shortage: Shortage) -> str:
        """What is wrong if no day has room for this, not even a whole one; else empty."""
        return self._budget.never(shortage)
