"""What a device says of how it fares: no model yet, how far a transfer is, why it waits for another day."""

from __future__ import annotations

import logging

from fedmq.edge_client.amounts import of
from fedmq.edge_client.budget import OFFER_BYTES, Shortage, body_bytes
from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.estimate import update_bytes
from fedmq.edge_client.fetch import Fetch
from fedmq.edge_client.meter import Meter
from fedmq.edge_client.shown import Shown
from fedmq.edge_client.turned_away import OVER_QUOTA, of_quarantine
from fedmq.schemas.errors import LaterReason
from fedmq.schemas.layout import Layout
from fedmq.schemas.messages import Head

__all__ = ["Remarks"]

log = logging.getLogger("fedmq.client")

_QUIET_SECONDS = 5.0  # without a model until that is said


class Remarks:
    """Said in the status as long as it is so, and in the log once.

    Args:
        client_id: this device's.
        federation: its name.
        core: what decides.
        fetch: what takes models that come in parts.
        meter: what the link may carry a day.
        shown: the status.

    """

    def __init__(
        self, client_id: str, federation: str, core: ClientCore, fetch: Fetch, meter: Meter, shown: Shown
    ) -> None:
        self._client_id = client_id
        self._federation = federation
        self._core = core
        self._fetch = fetch
        self._meter = meter
        self._shown = shown
        self._aggregator_online: bool | None = None
        self._refused, self._refused_why = 0, ""  # messages of the aggregator, and why the last of them
        self._unreadable = ""  # why what lies on the model's topic cannot be read
        self._quiet_at: float | None = None  # when to say that there is no model
        self._quiet = ""  # as it was said, until there is one
        self._shortage: Shortage | None = None  # that was said
        self._pause = ""  # as it was said
        self._put_off: LaterReason | None = None  # that was said
        self._foreseen = False  # whether a day's bytes suffice for one update
        self._sending: int | None = None  # the number of the update whose sending was said

    def connected(self, now: float) -> None:
        """There is a connection, in which a model may come."""
        self._quiet_at = now + _QUIET_SECONDS if self._core.newest is None else None

    def aggregator(self, *, online: bool) -> None:
        """The aggregator's presence was heard."""
        if self._aggregator_online != online:
            self._aggregator_online = online
            log.info("aggregator %s client=%s", "online" if online else "offline", self._client_id)

    def refused(self, why: str) -> None:
        """A message of the aggregator's was not believed."""
        self._refused, self._refused_why = self._refused + 1, why

    def unreadable(self, why: str) -> None:
        """What came on the model's topic says nothing."""
        self._unreadable = why

    def tick(self, now: float) -> None:
        """Say what is new, and take back what is over."""
        if self._quiet_at is not None and now >= self._quiet_at:
            self._quiet_at = None
            self._say_quiet()
        if self._quiet and self._has_model:
            if self._shown.status.detail == self._quiet:
                self._shown.say(detail="")
            self._quiet = ""
        self._shown.transfers(self._transfers(), now)
        self._say_pause()
        self._say_put_off()

    def begins(self, layout: Layout, head: Head) -> None:
        """A training begins: before the first one, say if no day has room for what it will make.

        It is an estimate: what zstd makes of the update is known when there is one, and then this device rests or not.
        Where the size is known before, no training begins that makes too much.
        """
        if self._foreseen:
            return
        self._foreseen = True
        needed = body_bytes(update_bytes(layout, head.plan), self._core.offers.part_bytes) + OFFER_BYTES
        if said := self._meter.never(Shortage("uplink", needed)):
            log.warning("budget too small client=%s detail=%r", self._client_id, said)
            self._shown.say(detail=said)

    @property
    def _has_model(self) -> bool:
        return self._core.newest is not None or self._fetch.receiving() is not None

    def _say_quiet(self) -> None:
        if self._has_model or self._core.paused is not None:
            return  # one that rests takes none
        said = f"no model in federation {self._federation!r} yet: does its aggregator run, is the name right?"
        if self._refused:
            messages = "a message" if self._refused == 1 else f"{self._refused} messages"
            said = (
                f"no model in federation {self._federation!r} yet: {messages} of its aggregator refused, the last "
                f"because {self._refused_why}; is signing.aggregator_keys_file the federation's of now?"
            )
        elif self._unreadable:
            said = (
                f"no model in federation {self._federation!r} yet: somebody has written over it ({self._unreadable}); "
                "the aggregator's next version takes its place, or the next start of the aggregator"
            )
        elif self._aggregator_online is not None:
            state = "online" if self._aggregator_online else "offline"
            said = f"no model in federation {self._federation!r} yet; its aggregator is {state}"
        self._quiet = said
        log.warning("waiting client=%s detail=%r", self._client_id, said)
        self._shown.say(detail=said)

    def _transfers(self) -> str:
        """What goes in parts now, and how far it is."""
        said = []
        receiving, sending = self._fetch.receiving(), self._core.offers.sending()
        if receiving is not None:
            version, came, size = receiving
            said.append(f"receiving version {version}: {of(came, size)}")
        if sending is not None:
            sequence, went, size = sending
            if sequence != self._sending:
                self._sending = sequence
                parts = -(-size // self._core.offers.part_bytes)
                log.info("sending client=%s sequence=%d bytes=%d parts=%d", self._client_id, sequence, size, parts)
            said.append(f"sending update {sequence}: {of(went, size)}")
        return "; ".join(said)

    def _say_pause(self) -> None:
        if self._core.paused != self._shortage:
            self._shortage = self._core.paused
            if self._shortage is not None:
                self._pause = self._meter.sentence(self._shortage)
                log.warning("paused client=%s detail=%r", self._client_id, self._pause)
            elif self._shown.status.detail == self._pause:
                self._shown.say(detail="")
        if self._shortage is not None and self._shown.status.detail != self._pause:
            self._shown.say(detail=self._pause)  # as long as it lasts, whatever else happens

    def _say_put_off(self) -> None:
        """What the aggregator holds against this device, or that it has had enough of it for today."""
        before, now = self._put_off, self._core.offers.put_off
        said = self._of(now)
        if now != before:
            self._put_off = now
            if now is None:
                log.info("heard again client=%s: what waited is offered now", self._client_id)
            else:
                level = logging.WARNING if now == "quarantine" else logging.INFO
                log.log(level, "waiting client=%s reason=%s detail=%r", self._client_id, now, said)
            if not said and self._shown.status.detail == self._of(before):
                self._shown.say(detail="")
        if said and self._shortage is None and self._shown.status.detail != said:
            self._shown.say(detail=said)  # as long as it lasts, whatever else happens

    def _of(self, put_off: LaterReason | None) -> str:
        if put_off is None:
            return ""
        return of_quarantine(self._client_id) if put_off == "quarantine" else OVER_QUOTA
