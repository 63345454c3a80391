"""What the aggregator shows: the head with its weights, the layout, the progress. Retained, and of committed state."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fedmq.aggregator.aside import LARGE_BYTES, Aside
from fedmq.aggregator.committed import Committed
from fedmq.aggregator.kept_snapshot import Kept
from fedmq.aggregator.snapshots import Snapshots
from fedmq.schemas.codecs import Codec
from fedmq.schemas.errors import StoreError
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Head, LayoutNotice, Metrics, Need, Progress, Quarantined
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.transport.link import Link

__all__ = ["Publisher"]

log = logging.getLogger("fedmq.aggregator")

_PROGRESS_INTERVAL = 1.0
_RATE_SECONDS = 30.0
_PAUSE = 10  # times as long as a snapshot in parts took, until the next one
_CLIENTS = 100  # named in the progress: those heard last


class _Made(NamedTuple):
    """A snapshot to publish: its bytes, their digest, and where they are kept if they go in parts."""

    committed: Committed
    body: memoryview
    digest: str
    kept: Kept | None


class Publisher:
    """Publishes the newest snapshot, not more often than every `interval` seconds.

    A thousand versions a second are not a thousand broadcasts.

    Args:
        link: to the broker.
        topics: of the federation.
        plan: that travels with the model.
        codec: of the snapshots.
        interval: between two snapshots, in seconds.
        folder: for snapshots in parts.
        limits: what is taken and what not, as the progress says it.

    """

    def __init__(
        self,
        link: Link,
        topics: Topics,
        plan: Plan,
        codec: Codec,
        interval: float,
        folder: Path | None = None,
        limits: str = "",
    ) -> None:
        self._link = link
        self._topics = topics
        self._plan = plan
        self._codec = codec
        self._interval = interval
        self._limits = limits
        self._snapshots = Snapshots(link, topics, folder)
        self._making: Aside[_Made] = Aside("fedmq-snapshot", link.wake)  # of a large model
        self._coming: tuple[int, str] | None = None  # version and state of the head whose parts are on their way
        self._pause = 0.0  # after a snapshot in parts: publishing takes no more than a tenth of the time
        self._on_broker: Head | None = None  # from before
        self._connected = False
        self._shown: tuple[int, str] | None = None  # version and state of the head that is out
        self._shown_at = float("-inf")
        self._progress: Progress | None = None
        self._progress_at = float("-inf")
        self._rates: deque[tuple[float, int]] = deque()
        self._measured: tuple[int, Metrics] | None = None
        self._waits = ""
        self._epoch: float | None = None  # when the run's seconds began, for people
        self._heard: OrderedDict[str, None] = OrderedDict()

    @property
    def shows_end(self) -> bool:
        """Whether the head that is out says that the run is finished."""
        return self._connected and self._shown is not None and self._shown[1] == "finished"

    @property
    def making(self) -> bool:
        """Whether a snapshot is being encoded and written, in a thread: a newer one would be another vector."""
        return self._making.busy

    def connected(self, shown: Head | None, now: float) -> None:
        """The broker may have forgotten everything: show it again, but for a snapshot in parts that it still shows."""
        self._connected = True
        self._on_broker = shown
        self._snapshots.connected(shown, now)
        self._shown = self._progress = None
        self._shown_at = self._progress_at = float("-inf")

    def disconnected(self) -> None:
        """Nothing can be shown."""
        self._connected = False
        self._coming = None
        self._snapshots.disconnected()

    def need(self, client_id: str, need: Need, now: float) -> None:
        """A device reads a snapshot in parts, misses some of them, or is done."""
        self._snapshots.need(client_id, need, now)

    def work(self, now: float) -> None:
        """Go on with a snapshot in parts, and show its head when they are all out."""
        try:
            out = self._snapshots.work(now) if self._connected else None
        except StoreError as error:
            log.error("a snapshot is made anew: %s", error)
            self._snapshots.forget()
            self._coming = self._shown = out = None
        if out is None:
            return
        head, took = out
        if self._link.publish(self._topics.model, encode(head), retain=True):
            self._shown, self._shown_at, self._pause = self._coming, now, _PAUSE * took
        self._coming = None

    def heard(self, client_id: str) -> None:
        """A client made an offer."""
        self._heard[client_id] = None
        self._heard.move_to_end(client_id)
        if len(self._heard) > _CLIENTS:
            self._heard.popitem(last=False)

    def unheard(self, clients: Iterable[str]) -> None:
        """These are not to be named any more."""
        for client_id in clients:
            self._heard.pop(client_id, None)

    def measured(self, version: int, metrics: Metrics) -> None:
        """The aggregator evaluated a version itself."""
        self._measured = (version, metrics)

    def waits(self, what: str) -> None:
        """What the next version waits for, if that takes long; empty if it does not."""
        self._waits = what

    def due(self, version: int, finished: str | None, now: float) -> bool:
        """Whether something is to be shown now that is not."""
        at = self.deadline(version, finished)
        return at is not None and now >= at

    def deadline(self, version: int, finished: str | None) -> float | None:
        """When something may be shown that is not; None while there is no connection."""
        if not self._connected:
            return None
        progress = self._progress_at + _PROGRESS_INTERVAL
        look = _look(version, finished)
        if self._making.busy:
            return float("-inf") if self._making.ready else progress
        if self._coming is not None or self._shown == look:
            return progress
        return min(progress, self._shown_at + max(self._interval, self._pause))

    def work_deadline(self) -> float | None:
        """When `work` is due, whatever is committed."""
        return self._snapshots.deadline() if self._connected else None

    def publish(
        self, committed: Committed, strategy: str, goal: str, now: float, *, at_once: bool = False
    ) -> tuple[int, Callable[[], Vector]] | None:
        """Show what is new and due; with `at_once`, whatever is new. A large snapshot goes out at a later call.

        Returns:
            If a snapshot went out, its version, and what says what devices decode from it, float32 [layout.size].

        """
        if not self._connected:
            return None
        received: tuple[int, Callable[[], Vector]] | None = None
        look = _look(committed.version, committed.finished)
        due = at_once or now >= self._shown_at + max(self._interval, self._pause)
        made: _Made | None = None
        if self._making.busy:
            result = self._making.take()
            if isinstance(result, Exception):
                raise result
            made = result
        elif self._shown != look and self._coming is None and due:
            if committed.weights.nbytes > LARGE_BYTES and not self._snapshots.fits(LARGE_BYTES):
                self._making.start(partial(self._make, committed))
            else:
                made = self._make(committed)
        if made is not None and self._publish_snapshot(made, now):
            # Deltas refer to what devices decode, not to what was encoded.
            received = made.committed.version, partial(self._codec.decode, made.body, committed.layout)
        if at_once or now >= self._progress_at + _PROGRESS_INTERVAL:
            self._publish_progress(committed, strategy, goal, now)
        return received

    def _make(self, committed: Committed) -> _Made:
        body = memoryview(self._codec.encode(committed.weights, committed.layout))
        kept = None if self._snapshots.fits(len(body)) else self._snapshots.keep(body)
        return _Made(committed, body, hashlib.sha256(body).hexdigest(), kept)

    def _publish_snapshot(self, made: _Made, now: float) -> bool:
        """Show a snapshot, or begin to; False if there is no connection."""
        committed, body, digest, kept = made
        look = _look(committed.version, committed.finished)
        head = Head(
            run=committed.run,
            version=committed.version,
            state="training" if committed.finished is None else "finished",
            plan=self._plan,
            layout=committed.layout.digest,
            codec=self._codec.name,
            size=len(body),
            digest=digest,
        )
        before, self._on_broker = self._on_broker, None
        if self._shown is None:
            self._publish_layout(committed)
        if self._snapshots.fits(len(body)):
            self._snapshots.clear()
            if not self._link.publish(self._topics.model, encode(head, body), retain=True):
                return False
            self._shown, self._shown_at, self._pause = look, now, 0.0
            return True
        kept = kept or self._snapshots.keep(body)  # a broker may have come to take less meanwhile
        if (known := self._known_parts(head, before)) is not None:
            if not self._link.publish(self._topics.model, encode(known), retain=True):
                return False
            self._snapshots.adopt(known, kept, now)
            self._shown, self._shown_at = look, now
        else:
            self._snapshots.begin(head, kept, now)
            self._coming = look
        return True

    def _known_parts(self, head: Head, before: Head | None) -> Head | None:
        """The head with its slot if its parts are out: from before, or of the same version when the run ends."""
        for known in (before, self._snapshots.newest):
            if known is not None and known.slot is not None:
                there = head.model_copy(update={"slot": known.slot, "part_bytes": known.part_bytes})
                if known.model_copy(update={"state": head.state}) == there:
                    return there
        return None

    def _publish_layout(self, committed: Committed) -> None:
        notice = encode(LayoutNotice(run=committed.run, digest=committed.layout.digest), committed.layout.encoded)
        if len(notice) > self._link.max_message_bytes:
            log.warning("layout not published bytes=%d: clients that cannot compute it cannot take part", len(notice))
            return
        self._link.publish(self._topics.layout, notice, retain=True)

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
            verdicts=committed.verdicts,
            rejected=committed.rejected,
            later=committed.later,
            updates_per_second=max(0.0, (after - before) / (now - begun)) if now > begun else 0.0,
            mean_staleness=committed.mean_staleness,
            buffer_size=committed.buffer_size,
            buffered=committed.buffered,
            goal=goal,
            limits=self._limits,
            waits=self._waits,
            devices=committed.devices,
            devices_version=committed.devices_version,
            aggregator=self._measured[1] if self._measured else None,
            aggregator_version=self._measured[0] if self._measured else None,
            clients=tuple(self._heard),
            quarantine=tuple(self._quarantined(committed, now)),
            quarantined=len(committed.quarantine),
            uplink_bytes=committed.uplink_bytes,
        )
        self._progress_at = now
        if progress == self._progress:
            return
        if self._link.publish(self._topics.progress, self._fitting(progress), retain=True):
            self._progress = progress

    def _fitting(self, progress: Progress) -> bytes:
        """In one message, whatever the broker takes: with fewer names if need be."""
        named = max(len(progress.clients), len(progress.quarantine))
        while len(message := encode(progress)) > self._link.max_message_bytes and named:
            named //= 2
            newest = slice(-named, None) if named else slice(0)
            fewer = {"clients": progress.clients[newest], "quarantine": progress.quarantine[newest]}
            progress = progress.model_copy(update=fewer)
        return message

    def _quarantined(self, committed: Committed, now: float) -> Iterator[Quarantined]:
        if self._epoch is None:  # once, so that what is shown stays the same
            self._epoch = time.time() - now
        for client_id, held in list(committed.quarantine.items())[-_CLIENTS:]:
            since, until = (max(0, int(self._epoch + seconds)) for seconds in (held.since, held.until))
            yield Quarantined(client_id=client_id, reason=held.reason, since=since, until=until)


def _look(version: int, finished: str | None) -> tuple[int, str]:
    return version, "training" if finished is None else "finished"
