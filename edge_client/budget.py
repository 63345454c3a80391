"""What a device may send and receive in a day, where its link is paid by the byte.

Bytes of MQTT packets count, both ways and on every topic, pings too; TCP and TLS add about 40 bytes to each packet. A
day begins at 00:00 UTC by the device's own clock: nothing but this budget depends on that clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from fedmq.edge_client.amounts import beyond

__all__ = ["OFFER_BYTES", "Allowance", "Budget", "Shortage", "Spent", "body_bytes", "too_small"]

OFFER_BYTES = 1024
"""Of an offer or a head beside its body, about."""

_DAY_SECONDS = 86_400
_STEPS = 64  # of a budget: one is kept as spent before it is, and is what a kill costs
_LEAST_STEP = 1024
_PART_BYTES = 256  # of a part beside its bytes, about: header, signature, topic, and what was said to have it come
_WHAT = {"uplink": "an update", "downlink": "a model"}
_CODEC = {"uplink": "plan.codec", "downlink": "aggregator.snapshot_codec"}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of this day.

    Attributes:
        uplink, downlink: bytes, 0 at least; None for no limit.
        until: when the next day begins, in the owner's seconds, as far as its clock and the device's agree.
        day: this one.

    """

    uplink: int | None = None
    downlink: int | None = None
    until: float = math.inf
    day: int = 0

    def suffices(self, *, uplink: int = 0, downlink: int = 0) -> bool:
        """Whether so many bytes may still be sent and received."""
        left = ((self.uplink, uplink), (self.downlink, downlink))
        return all(limit is None or limit >= wanted for limit, wanted in left)


@dataclass(frozen=True, slots=True)
class Shortage:
    """So many bytes are needed, and not left today."""

    direction: Literal["uplink", "downlink"]
    needed: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What was carried on a day, counted in days since 1970, in bytes."""

    day: int = 0
    uplink: int = 0
    downlink: int = 0


class Budget:
    """Counts what a link carries against a day's limits.

    Args:
        uplink, downlink: bytes a day; None for no limit.
        spent, later: what an earlier process had counted.

    Attributes:
        spent: on this day.
        later: on the later day from which the clock went back last, until that day returns or is over; None if it did
            not. A device without a clock of its own begins each time in 1970.

    """

    def __init__(
        self,
        uplink: int | None = None,
        downlink: int | None = None,
        spent: Spent | None = None,
        later: Spent | None = None,
    ) -> None:
        self.uplink = uplink
        self.downlink = downlink
        self.spent = spent or Spent()
        self.later = later
        self._kept = self.spent
        self._carried = (0, 0)
        self._promised = 0  # bytes that the link was given to send, and has not carried yet
        limits = [limit for limit in (uplink, downlink) if limit is not None]
        self._step = max(min(limits, default=0) // _STEPS, _LEAST_STEP)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.uplink is not None or self.downlink is not None

    def count(self, sent: int, received: int, wall: float) -> None:
        """The link has carried so many bytes in all, at this time in seconds since 1970."""
        day = int(wall // _DAY_SECONDS)
        if day != self.spent.day:
            self._turn_to(day)
        up, down = sent - self._carried[0], received - self._carried[1]
        if up or down:
            self._carried = (sent, received)
            self._promised = max(0, self._promised - up)
            self.spent = replace(self.spent, uplink=self.spent.uplink + up, downlink=self.spent.downlink + down)

    def promise(self, size: int) -> None:
        """So many bytes are about to be given to the link."""
        self._promised += size

    def cut_off(self) -> None:
        """What the link was given, and has not carried, is gone with its connection."""
        self._promised = 0

    def allowance(self, wall: float, now: float) -> Allowance:
        """What is left; `now` is `wall` in the owner's seconds."""
        until = now + _DAY_SECONDS - wall % _DAY_SECONDS
        spent = self.spent
        return Allowance(_left(self.uplink, spent.uplink), _left(self.downlink, spent.downlink), until, spent.day)

    def sentence(self, shortage: Shortage) -> str:
        """What is short, and what can be done."""
        limit = (self.uplink if shortage.direction == "uplink" else self.downlink) or 0
        if said := too_small(limit, shortage):
            return said
        used = self.spent.uplink if shortage.direction == "uplink" else self.spent.downlink
        used_of_limit, needed = beyond(used, shortage.needed, limit)
        return (
            f"{used_of_limit} of daily_{shortage.direction} used today, {_WHAT[shortage.direction]} takes {needed}; "
            "this device goes on after 00:00 UTC"
        )

    def never(self, shortage: Shortage) -> str:
        """What is wrong if no day has room for this, not even a whole one; else empty."""
        return too_small(self.uplink if shortage.direction == "uplink" else self.downlink, shortage)

    def to_keep(self) -> Spent | None:
        """What to keep as spent, if it is time to: a step more than is, as a card is not written for every message.

        So what is on the disk is never less than what was carried, and a kill does not lengthen the day.
        """
        new, old = replace(self.spent, uplink=self.spent.uplink + self._promised), self._kept
        ahead = (old.uplink - new.uplink, old.downlink - new.downlink)
        if not self.limited or (new.day == old.day and self._step // 2 <= min(ahead) and ahead[0] <= self._step):
            return None
        self._kept = replace(new, uplink=new.uplink + self._step, downlink=new.downlink + self._step)
        return self._kept

    def _turn_to(self, day: int) -> None:
        left, later = self.spent, self.later
        self.spent = Spent(day)
        if day < left.day:  # a day of its own: a clock that was wrong must not cost a day that is yet to come
            self.later = left
        elif later is not None and day >= later.day:
            self.later = None
            if day == later.day:
                self.spent = later
                if day > left.day + 1:  # no midnight: the clock was set, and what it was wrong for is of this day
                    self.spent = Spent(day, later.uplink + left.uplink, later.downlink + left.downlink)


def body_bytes(size: int, part_bytes: int | None) -> int:
    """About what a body of this size takes on a link: in parts of so many bytes if it has more."""
    if part_bytes is None or size <= part_bytes:
        return size
    return size + -(-size // part_bytes) * _PART_BYTES


def too_small(limit: int | None, shortage: Shortage) -> str:
    """One sentence if a whole day's bytes do not suffice for what is needed once; else empty."""
    if limit is None or shortage.needed <= limit:
        return ""
    what, codec = _WHAT[shortage.direction], _CODEC[shortage.direction]
    return (
        f"device.daily_{shortage.direction} is {limit} bytes, {what} takes {shortage.needed}: "
        f"allow more, or choose another {codec}"
    )


def _left(limit: int | None, spent: int) -> int | None:
    return None if limit is None else max(0, limit - spent)
