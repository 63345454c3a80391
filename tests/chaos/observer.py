"""The one that is never killed: it hears every offer and every receipt that a broker lets it hear."""

from __future__ import annotations

import threading
from collections import defaultdict
from types import TracebackType
from typing import NamedTuple, Self

from fedmq.connect import mqtt_link
from fedmq.schemas.messages import Offer, Receipt, Reply
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode
from fedmq.settings import Settings
from fedmq.transport.link import Connected, Message

__all__ = ["Observer", "Update", "Verdict"]


class Update(NamedTuple):
    """Which update."""

    client_id: str
    outbox_id: str
    sequence: int


class Verdict(NamedTuple):
    """What a receipt says that has to stay the same; its sentence may not."""

    verdict: str
    reason: str | None
    version: int | None
    staleness: int | None

    @classmethod
    def of(cls, receipt: Receipt) -> Verdict:
        """What this receipt says."""
        return cls(receipt.verdict, receipt.reason, receipt.version, receipt.staleness)


class Observer:
    """A connection in a thread of its own; a context manager.

    Attributes:
        verdicts: on each update, all that were ever heard.
        digests: of each update, all that were ever offered.
        receipts: how many were heard, the same again included.
        accepted: updates with an accepting receipt.

    """

    def __init__(self, settings: Settings) -> None:
        self.verdicts: defaultdict[Update, set[Verdict]] = defaultdict(set)
        self.digests: defaultdict[Update, set[str]] = defaultdict(set)
        self.receipts = 0
        self.accepted = 0
        self._topics = Topics(settings.federation)
        # It has to be back before the others, who pause longer between attempts.
        broker = settings.broker.model_copy(update={"reconnect_max_seconds": 0.02})
        self._link = mqtt_link(broker, f"{settings.federation}-observer")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="observer", daemon=True)
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._link.wake()
        self._thread.join()
        if self.failure is not None and error is None:
            raise self.failure

    def _work(self) -> None:
        try:
            self._link.open()
            while not self._stop.is_set():
                self._hear()
            self._link.close()
        except BaseException as error:  # raised again in the thread that owns this object
            self.failure = error

    def _hear(self) -> None:
        event = self._link.poll(0.5)
        if isinstance(event, Connected):
            self._link.subscribe(self._topics.updates, self._topics.reply("x").removesuffix("x") + "+")
        elif isinstance(event, Message):
            client_id = event.topic.rpartition("/")[2]
            if self._topics.sender(event.topic) is not None:
                offer, _ = decode(event.payload, Offer)
                update = Update(client_id, offer.update.outbox_id, offer.update.sequence)
                self.digests[update].add(offer.digest)
            else:
                for receipt in decode(event.payload, Reply)[0].receipts:
                    self._take(Update(client_id, receipt.update.outbox_id, receipt.update.sequence), receipt)

    def _take(self, update: Update, receipt: Receipt) -> None:
        heard = self.verdicts[update]
        before = any(each.verdict == "accepted" for each in heard)
        heard.add(Verdict.of(receipt))
        self.receipts += 1
        self.accepted += receipt.verdict == "accepted" and not before
