"""Which snapshot a device has at hand: the newest whose layout is its own, in one message or in parts."""

from __future__ import annotations

import hashlib
import logging

from fedmq.edge_client.actions import Action, Stop
from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.estimate import known_bytes
from fedmq.edge_client.fetch import Fetch
from fedmq.edge_client.training import Training
from fedmq.schemas.errors import ConfigError, ProtocolError
from fedmq.schemas.layout import Layout
from fedmq.schemas.messages import Head, LayoutNotice

__all__ = ["Intake"]

log = logging.getLogger("fedmq.client")

_SLACK_BYTES = 64 * 1024  # of encoded weights beyond their floats, at most


class Intake:
    """Between what is heard of models and the core. What returns actions wants them done, in order.

    Args:
        client_id: this device's.
        core: what decides.
        training: knows the layout of its model.
        fetch: what takes models that come in parts.

    Attributes:
        snapshot: the encoded weights of the core's newest head, and their layout.

    """

    def __init__(self, client_id: str, core: ClientCore, training: Training, fetch: Fetch) -> None:
        self.snapshot: tuple[memoryview, Layout] | None = None
        self._client_id = client_id
        self._core = core
        self._training = training
        self._fetch = fetch
        self._unfitting: tuple[Head, memoryview] | None = None  # the last head that waits for its layout
        self._announced: Layout | None = None  # by the layout topic

    def heard(self, head: Head, body: memoryview, now: float) -> list[Action]:
        """A head was heard, with its weights; or with their place, if they come in parts.

        Raises:
            ProtocolError: the weights are not what the head says.

        """
        if head.slot is None:
            return self._consider(head, body, now)
        actions: list[Action] = []
        layout = self._training.layout(head.plan) or self._announced
        if head.state == "finished" or layout is None or layout.digest != head.layout:
            actions = self._core.head(head, None if layout is None else layout.digest == head.layout, now)
            self._unfitting = (head, body)
        elif self._core.wants(head) and not self._fetch.is_of(head):
            self._foresee(head, layout)
            if shortage := self._core.lacks(head):
                return self._core.pause(shortage)
            most_bytes = 4 * layout.size + _SLACK_BYTES
            if head.part_bytes is None or head.size > most_bytes:
                raise ProtocolError("malformed", f"a head of {head.size} bytes in parts of {head.part_bytes}")
            self._fetch.want(head, most_bytes, now)
        return [*actions, *self.fetched(now)]

    def fetched(self, now: float) -> list[Action]:
        """Use the snapshot that has come in parts, if it is whole and there is no job."""
        if self._core.training is not None:
            return []
        fetched = self._fetch.ready()
        if fetched is None or not self._core.wants(fetched[0]):
            return []
        head, body = fetched
        try:
            return self._consider(head, body, now, self._fetch.digest())
        except ProtocolError as error:
            log.error("ignored client=%s version=%d detail=%r", self._client_id, head.version, str(error))
            self._fetch.discard()
            return []

    def learned(self, notice: LayoutNotice, body: memoryview, now: float) -> list[Action]:
        """The run's layout was announced.

        Raises:
            ProtocolError: it is none, or not the one that the notice names.

        """
        announced = Layout.decode(body)
        if announced.digest != notice.digest:
            raise ProtocolError("malformed", "the layout does not have the announced digest")
        self._announced = announced
        if self._unfitting is None or self._unfitting[0].layout != announced.digest:
            return []
        mine = self._training.layout(self._unfitting[0].plan)
        difference = mine.difference(announced) if mine else None
        if difference:
            return [Stop(2, f"this device's model is not the aggregator's: {difference}; use the same task file")]
        return self.heard(*self._unfitting, now)

    def _consider(self, head: Head, body: memoryview, now: float, digest: str | None = None) -> list[Action]:
        if len(body) != head.size or (digest or hashlib.sha256(body).hexdigest()) != head.digest:
            raise ProtocolError("malformed", f"{len(body)} bytes of weights do not have the announced size and digest")
        try:
            layout = self._training.layout(head.plan) or self._announced
        except ConfigError as error:
            return [Stop(2, str(error))]
        fits = None if layout is None else layout.digest == head.layout
        if fits and layout is not None:
            self._foresee(head, layout)
        actions = self._core.head(head, fits, now)
        # Weights stay only beside the head that they came with: the core ignores an old head, and any while it trains.
        if layout is not None and self._core.newest is head:
            self.snapshot, self._unfitting = (body, layout), None
        elif not fits:
            self._unfitting = (head, body)
        return actions

    def _foresee(self, head: Head, layout: Layout) -> None:
        """Say what an update will take, where that is known before there is one, and counts."""
        if self._core.allowance.uplink is not None and (size := known_bytes(layout, head.plan)) is not None:
            self._core.foresee(size)
