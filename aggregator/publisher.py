"""What the aggregator shows: the head with its weights, the layout, the progress. Retained, and of committed state."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque

from fedmq.aggregator.core import AggregatorCore
from fedmq.schemas.codecs import Codec
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

    def publish(self, core: AggregatorCore, now: float, *, at_once: bool = False) -> None:
        """Show what is new and due; with `at_once`, whatever is new."""
        if not self._connected:
            return
        if self._shown != self._to_show(core) and (at_once or now >= self._shown_at + self._interval):
            self._publish_head(core, now)
        if at_once or now >= self._progress_at + _PROGRESS_INTERVAL:
            self._publish_progress(core, now)

    def deadline(self, core: AggregatorCore) -> float | None:
        """When something new may be shown."""
        if not self._connected:
            return None
        waiting = self._shown != self._to_show(core)
        progress = self._progress_at + _PROGRESS_INTERVAL
        return min(progress, self._shown_at + self._interval) if waiting else progress

    def _to_show(self, core: AggregatorCore) -> tuple[int, str]:
        return core.state.version, "training" if core.state.finished is None else "finished"

    def _publish_head(self, core: AggregatorCore, now: float) -> None:
        state = core.state
        body = self._codec.encode(state.weights, state.layout)
        first = self._shown is None
        head = Head(
            run=state.run,
            version=state.version,
            state="training" if state.finished is None else "finished",
            plan=self._plan,
            layout=state.layout.digest,
            codec=self._codec.name,
            size=len(body),
            digest=hashlib.sha256(body).hexdigest(),
        )
        if first:
            notice = LayoutNotice(run=state.run, digest=state.layout.digest)
            self._link.publish(self._topics.layout, encode(notice, state.layout.encoded), retain=True)
        if self._link.publish(self._topics.model, encode(head, body), retain=True):
            self._shown, self._shown_at = self._to_show(core), now
            # Deltas refer to what devices decode, not to what was encoded.
            core.published(state.version, self._codec.decode(body, state.layout), now)

    def _publish_progress(self, core: AggregatorCore, now: float) -> None:
        state = core.state
        self._rates.append((now, state.accepted))
        while self._rates[0][0] < now - _RATE_SECONDS:
            self._rates.popleft()
        (begun, before), (_, after) = self._rates[0], self._rates[-1]
        progress = Progress(
            run=state.run,
            version=state.version,
            state="training" if state.finished is None else "finished",
            strategy=core.strategy.name,
            updates=state.accepted,
            rejected=dict(state.rejected),
            updates_per_second=(after - before) / (now - begun) if now > begun else 0.0,
            mean_staleness=state.mean_staleness,
            buffer_size=state.tempo.buffer_size,
            buffered=len(state.buffer.updates),
            goal=str(core.goal),
            devices=state.scores.now(),
            devices_version=state.scores.newest_version(),
            aggregator=self._measured[1] if self._measured else None,
            aggregator_version=self._measured[0] if self._measured else None,
            clients=tuple(self._heard),
            uplink_bytes=state.uplink_bytes,
        )
        self._progress_at = now
        if progress != self._progress and self._link.publish(self._topics.progress, encode(progress), retain=True):
            self._progress = progress
