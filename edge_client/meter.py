"""Reads what the link has carried, and keeps what of it counts against this day."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from fedmq.edge_client.budget import Allowance, Budget, Shortage
from fedmq.edge_client.outbox import Outbox
from fedmq.schemas.errors import StoreError

__all__ = ["Meter"]


class Meter:
    """One device's budget, counted.

    Args:
        carried: bytes that the link has sent and received so far.
        outbox: where they are kept, so that a restart costs nothing and saves nothing, and a kill costs little.
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
        self._budget = Budget(uplink, downlink, outbox.spent(), outbox.spent_later())

    def read(self, now: float) -> Allowance:
        """What is left of this day; `now` in the owner's seconds.

        Raises:
            StoreError: the disk refuses.

        """
        if not self._budget.limited:
            return Allowance()
        wall = self._wall()
        self._budget.count(*self._carried(), wall)
        self._keep()
        return self._budget.allowance(wall, now)

    def promise(self, size: int) -> None:
        """So many bytes are about to be given to the link: they are kept as spent before they are.

        Raises:
            StoreError: the disk refuses.

        """
        self._budget.promise(size)
        self._keep()

    def cut_off(self) -> None:
        """The connection is gone, and what was about to be sent on it."""
        self._budget.cut_off()

    def close(self) -> None:
        """The link is closed: keep what it has carried, to the byte."""
        if not self._budget.limited:
            return
        self._budget.count(*self._carried(), self._wall())
        # A disk that refuses has more than this already, and is perhaps why the device ends.
        with contextlib.suppress(StoreError):
            self._outbox.keep_spent(self._budget.spent, self._budget.later)

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

    def _keep(self) -> None:
        spent = self._budget.to_keep()
        if spent is not None:
            self._outbox.keep_spent(spent, self._budget.later)
