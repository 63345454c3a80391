"""What the aggregator shows: the head with its weights, the layout, the progress. Retained, and of committed state."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque

from fedmq.aggregator.committed import Committed
from fedmq.schemas.codecs import Codec
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Head, LayoutNotice, Metrics, Progress
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.transport.link import Link

__all__ = ["Publisher"]

_PROGRESS_INTERVAL = 1.0
_RATE_SECONDS = 30.0
_CLIENTS = 100  # named in the progress: those heard last


class Publisher:
    """Publishes the newest snapshot, not more often than every `interval` seconds.

    A thousand versions a second are not a thousand broadcasts.
    """

    def __init__(self, link: Link, topics: Topics, plan: Plan, codec: Codec, interval: float) -> None:
        self._link = link
        self._topics = topics
        self._plan = plan
        self._codec = codec
        self._interval = interval
        self._connected = False
        self._shown: tuple[int, str] | None = None  # version and state of the head that is out
        self._shown_at = float("-inf")
        self._progress: Progress | None = None
        self._progress_at = float("-inf")
        self._rates: deque[tuple[float, int]] = deque()
        self._measured: tuple[int, Metrics] | None = None
        self._heard: OrderedDict[str, None] = OrderedDict()

    @property
    def shows_end(self) -> bool:
        """Whether the head that is out says that the run is finished."""
        return self._connected and self._shown is not None and self._shown[1] == "finished"

    def connected(self) -> None:
        """The broker may have forgotten everything: show it again."""
        self._connected = True
        self._shown = self._progress = None
        self._shown_at = self._progress_at = float("-inf")

    def disconnected(self) -> None:
        """Nothing can be shown."""
        self._connected = False

    def heard(self, client_id: str) -> None:
        """A client made an offer."""
        self._heard[client_id] = None
        self._heard.move_to_end(client_id)
        if len(self._heard) > _CLIENTS:
            self._heard.popitem(last=False)

    def measured(self, version: int, metrics: Metrics) -> None:
        """The aggregator evaluated a version itself."""
        self._measured = (version, metrics)

    def due(self, version: int, finished: str | None, now: float) -> bool:
        """Whether something is to be shown now that is not."""
        at = self.deadline(version, finished)
        return at is not None and now >= at

    def deadline(self, version: int, finished: str | None) -> float | None:
        """When something may be shown that is not; None while there is no connection."""
        if not self._connected:
            return None
        progress = self._progress_at + _PROGRESS_INTERVAL
        return min(progress, self._shown_at + self._interval) if self._shown != _look(version, finished) else progress

    def publish(
        self, committed: Committed, strategy: str, goal: str, now: float, *, at_once: bool = False
    ) -> Vector | None:
        """Show what is new and due; with `at_once`, whatever is new.

        Returns:
            What devices decode from the snapshot, float32 [layout.size], if one went out.

        """
        if not self._connected:
            return None
        received = None
        look = _look(committed.version, committed.finished)
        if self._shown != look and (at_once or now >= self._shown_at + self._interval):
            body = self._codec.encode(committed.weights, committed.layout)
            if self._publish_head(committed, body):
                self._shown, self._shown_at = look, now
                # Deltas refer to what devices decode, not to what was encoded.
                received = self._codec.decode(body, committed.layout)
        if at_once or now >= self._progress_at + _PROGRESS_INTERVAL:
            self._publish_progress(committed, strategy, goal, now)
        return received

    def _publish_head(self, committed: Committed, body: bytes) -> bool:
        head = Head(
            run=committed.run,
            version=committed.version,
            state="training" if committed.finished is None else "finished",
            plan=self._plan,
            layout=committed.layout.digest,
            codec=self._codec.name,
            size=len(body),
            digest=hashlib.sha256(body).hexdigest(),
        )
        if self._shown is None:
            notice = LayoutNotice(run=committed.run, digest=committed.layout.digest)
            self._link.publish(self._topics.layout, encode(notice, committed.layout.encoded), retain=True)
        return self._link.publish(self._topics.model, encode(head, body), retain=True)

    def _publish_progress(self, committed: Committed, strategy: str, goal: str, now: float) -> None:
        self._rates.append((now, committed.accepted))
        while self._rates[0][0] < now - _RATE_SECONDS:
            self._rates.popleft()
        (begun, before), (_, after) = self._rates[0], self._rates[-1]
        progress = Progress(
            run=committed.run,
            version=committed.version,
            state="training" if committed.finished is None else "finished",
            strategy=strategy,
            updates=committed.accepted,
            rejected=committed.rejected,
            updates_per_second=max(0.0, (after - before) / (now - begun)) if now > begun else 0.0,
            mean_staleness=committed.mean_staleness,
            buffer_size=committed.buffer_size,
            buffered=committed.buffered,
            goal=goal,
            devices=committed.devices,
            devices_version=committed.devices_version,
            aggregator=self._measured[1] if self._measured else None,
            aggregator_version=self._measured[0] if self._measured else None,
            clients=tuple(self._heard),
            uplink_bytes=committed.uplink_bytes,
        )
        self._progress_at = now
        if progress != self._progress and self._link.publish(self._topics.progress, encode(progress), retain=True):
            self._progress = progress


def _look(version: int, finished: str | None) -> tuple[int, str]:
    return version, "training" if finished is None else "finished"
