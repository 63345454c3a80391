"""A client made by hand: what it sends is chosen byte by byte, and every answer is kept."""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

import numpy as np

from fedmq.connect import mqtt_link
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import Head, Offer, Receipt, Reply, UpdateId
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.settings import load_settings
from fedmq.transport.link import Connected, Message
from tests.system.processes import PATIENCE, Federation

__all__ = ["UPDATE", "HandmadeClient"]

UPDATE = np.ones(4, "<f4").tobytes()
"""One, four times: what fits the weights of a test federation."""

_LAYOUT = Layout.of([Entry("w", (4,))])


class HandmadeClient:
    """A link, and the head and replies that came over it; a context manager.

    Attributes:
        head: the newest model's.
        receipts: by client and sequence number, every verdict ever heard, in order.

    """

    def __init__(self, fed: Federation, client_id: str, *listen_to: str) -> None:
        settings = load_settings(fed.file, environment={})
        self.client_id = client_id
        self.topics = Topics(fed.name)
        self.receipts: defaultdict[tuple[str, str, int], list[Receipt]] = defaultdict(list)
        self._outbox = os.urandom(16).hex()
        self._replies = {self.topics.reply(each): each for each in (client_id, *listen_to)}
        self._head: Head | None = None
        wide = settings.broker.model_copy(update={"max_message_bytes": 1 << 20})  # it need not keep to anything
        self._link = mqtt_link(wide, f"{fed.name}-{client_id}")

    @property
    def head(self) -> Head:
        assert self._head is not None
        return self._head

    def __enter__(self) -> Self:
        self._link.open()
        self._until(lambda: self._head is not None, "the model")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._link.close()

    def offer(self, sequence: int, body: bytes = UPDATE, **changes: Any) -> Offer:
        """The header of an update that is right but for the changes."""
        update = UpdateId(outbox_id=self._outbox, sequence=sequence)
        offer = Offer(
            run=self.head.run,
            client_id=self.client_id,
            update=update,
            base_version=self.head.version,
            layout=_LAYOUT.digest,
            codec="float32",
            size=len(body),
            digest=hashlib.sha256(body).hexdigest(),
            num_samples=10,
            task_version="1",
        )
        return offer.model_copy(update=changes)

    def send(self, offer: Offer, body: bytes = UPDATE) -> None:
        """Make an offer."""
        self.publish(self.topics.update(self.client_id), encode(offer, body))

    def publish(self, topic: str, payload: bytes) -> None:
        """Send anything anywhere, and wait until the broker has it."""
        assert self._link.publish(topic, payload)
        assert self._link.flush(PATIENCE)

    def receipt(self, sequence: int, nth: int = 1) -> Receipt:
        """Wait for the `nth` receipt on an own update."""
        heard = self.receipts[self.client_id, self._outbox, sequence]
        self._until(lambda: len(heard) >= nth, f"receipt {nth} on update {sequence}")
        return heard[nth - 1]

    def listen(self, seconds: float = 0.0) -> None:
        """Take what comes for so long."""
        deadline = time.monotonic() + seconds
        while self._poll(max(0.0, deadline - time.monotonic())) or time.monotonic() < deadline:
            pass

    def _until(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
            self._poll(0.05)

    def _poll(self, timeout: float) -> bool:
        event = self._link.poll(timeout)
        if isinstance(event, Connected):
            self._link.subscribe(self.topics.model, *self._replies)
        elif isinstance(event, Message) and not event.payload:
            pass  # an aggregator's mark
        elif isinstance(event, Message) and event.topic == self.topics.model:
            self._head, _ = decode(event.payload, Head)
        elif isinstance(event, Message):
            for receipt in decode(event.payload, Reply)[0].receipts:
                update = receipt.update
                self.receipts[self._replies[event.topic], update.outbox_id, update.sequence].append(receipt)
        return event is not None
