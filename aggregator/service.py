"""The aggregator's loop: from the link to the core, from the core to the store, and only then back to the link.

Receipts, snapshots and progress follow from committed state alone. Commits clock themselves: one when nothing more is
waiting to be read, or when many verdicts or some time have gathered.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.evaluator import Evaluator
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.state import VersionRecord
from fedmq.aggregator.store import Store
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import (
    AggregatorPresence,
    ClientStatus,
    Missing,
    Offer,
    Receipt,
    Reply,
)
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.transport.link import Connected, Disconnected, Event, Link, Message, Refused

__all__ = ["AggregatorService", "Ending"]

log = logging.getLogger("fedmq.aggregator")

_COMMIT_VERDICTS = 64
_COMMIT_SECONDS = 0.1
_LAST_EVALUATION_SECONDS = 120.0  # that a finished run waits for its last evaluation
_LAST_WORD_SECONDS = 5.0  # until the broker has taken what a finished run shows last; then it is tried again
_REPLY_ANSWERS = 32  # in one message: with their sentences they fit into a header


@dataclass(frozen=True, slots=True)
class Ending:
    """How the service ended: 0 for a finished run or a stop that was asked for."""

    code: int
    why: str


class AggregatorService:
    """One aggregator at work.

    Attributes:
        ended: set when it has ended.
        on_version: called with each version after its commit.

    """

    def __init__(
        self,
        *,
        link: Link,
        topics: Topics,
        core: AggregatorCore,
        publisher: Publisher,
        incarnation: str,
        store: Store | None = None,
        evaluator: Evaluator | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ended: Ending | None = None
        self.on_version: Callable[[VersionRecord], None] = lambda record: None
        self._link = link
        self._topics = topics
        self._core = core
        self._publisher = publisher
        self._incarnation = incarnation
        self._store = store
        self._evaluator = evaluator
        self._clock = clock
        self._begun = clock() - core.state.seconds
        self._replies: OrderedDict[str, tuple[list[Receipt], list[Missing]]] = OrderedDict()
        self._uncommitted = 0
        self._uncommitted_since = 0.0
        self._committed = core.state.version
        self._committed_end = core.state.finished
        self._end_by: float | None = None
        self._connections = 0
        self._heard_own_presence = False
        self._predecessors: set[str] = set()  # incarnations that were here before this one came
        self._evaluated = -1
        self._asked: Ending | None = None
        # What is in memory is committed before anyone hears of it, version 0 too.
        self._commit()

    @property
    def committed(self) -> int:
        """The newest version that is on the disk."""
        return self._committed

    def now(self) -> float:
        """Seconds of the run."""
        return self._clock() - self._begun

    def handle(self, event: Event) -> None:
        """One event of the link."""
        if isinstance(event, Message):
            self._received(event)
        elif isinstance(event, Connected):
            self._connected()
        elif isinstance(event, Disconnected):
            log.warning("disconnected reason=%r", event.reason)
            self._publisher.disconnected()
            self._replies.clear()  # whoever waits for them will offer again
        elif isinstance(event, Refused):
            log.error("refused topic=%s reason=%r", event.topic, event.reason)

    def tick(self, *, idle: bool = True) -> None:
        """Do what is due; `idle` says that nothing waits to be read."""
        now = self.now()
        self._core.tick(now)
        self._take_evaluation(now)
        due = self._uncommitted >= _COMMIT_VERDICTS or now >= self._uncommitted_since + _COMMIT_SECONDS
        state = self._core.state
        if self._core.news.versions or state.finished != self._committed_end or (self._uncommitted and (idle or due)):
            self._commit()
        self._answer()
        if not self._uncommitted:
            self._publisher.publish(self._core, now)
        self._start_evaluation()
        if state.finished is not None and self.ended is None:
            self._finish(now)

    def deadline(self) -> float | None:
        """When `tick` is due even if nothing happens, in seconds of the run."""
        times = [self._core.deadline(), self._publisher.deadline(self._core)]
        return min((at for at in times if at is not None), default=None)

    def run(self) -> Ending:
        """Work until the run is finished or `stop` is called."""
        self._link.open()
        try:
            while self.ended is None:
                if self._asked is not None:
                    self.stop(self._asked)
                    break
                deadline = self.deadline()
                wait = 1.0 if deadline is None else min(1.0, max(0.0, deadline - self.now()))
                event = self._link.poll(0.0 if self._uncommitted else wait)
                if event is not None:
                    self.handle(event)
                if self.ended is None:
                    self.tick(idle=event is None)
        except BaseException as error:
            # What is in memory may not be on the disk: nothing more of it is told than that it goes.
            self._leave(Ending(1, str(error) or type(error).__name__))
            raise
        assert self.ended is not None
        return self.ended

    def ask_to_stop(self, why: str) -> None:
        """Have `run` end soon, with code 0. From any thread or signal handler."""
        self._asked = Ending(0, why)
        self._link.wake()

    def stop(self, ending: Ending) -> None:
        """Commit, say goodbye, end."""
        if self.ended is not None:
            return
        self._commit()
        self._answer()
        self._publisher.publish(self._core, self.now(), at_once=True)
        self._leave(ending)

    def _leave(self, ending: Ending) -> None:
        if self.ended is not None:
            return
        self.ended = ending
        self._link.publish(self._topics.aggregator, encode(self._presence("offline")), retain=True)
        self._link.flush(2.0)
        self._link.close()
        (log.info if ending.code == 0 else log.error)("stopped version=%d why=%r", self._committed, ending.why)

    def _connected(self) -> None:
        self._connections += 1
        self._heard_own_presence = False
        topics = self._topics
        # Presence before the own is published: what is retained there may be another aggregator's.
        self._link.subscribe(topics.aggregator, topics.updates)
        if self._core.strategy.cohort:
            self._link.subscribe(topics.statuses)
        self._link.publish(topics.aggregator, encode(self._presence("online")), retain=True)
        self._publisher.connected()
        log.info("connected run=%s version=%d", self._core.state.run, self._core.state.version)

    def _presence(self, state: Literal["online", "offline"]) -> AggregatorPresence:
        run = self._core.state.run
        return AggregatorPresence(state=state, run=run, incarnation=self._incarnation, version=self._committed)

    def _received(self, message: Message) -> None:
        topic = message.topic
        try:
            if topic == self._topics.aggregator:
                self._meet(decode(message.payload, AggregatorPresence)[0])
                return
            client_id = self._topics.sender(topic)
            if client_id is None:
                raise ProtocolError("malformed", "no client may write there")
            if topic == self._topics.status(client_id):
                if message.payload:
                    status, _ = decode(message.payload, ClientStatus)
                    self._core.presence(client_id, status.state == "online", self.now())
                return
            offer, body = decode(message.payload, Offer)
        except ProtocolError as error:
            log.warning("ignored topic=%s reason=%s detail=%r", topic, error.reason, str(error))
            return
        self._judge(client_id, offer, body)

    def _judge(self, client_id: str, offer: Offer, body: memoryview) -> None:
        now = self.now()
        self._publisher.heard(client_id)
        judged = self._judged()
        try:
            answer = self._core.judge(client_id, offer, body, now)
        except Exception as error:
            # Ours, not the sender's; but an update that breaks us must not come back for ever.
            log.exception("judging failed client=%s sequence=%d", client_id, offer.update.sequence)
            refusal = ProtocolError("internal", f"the aggregator failed: {type(error).__name__}")
            answer = self._core.refuse(client_id, offer, refusal)
        receipts, missing = self._replies.setdefault(client_id, ([], []))
        if isinstance(answer, Missing):
            missing.append(answer)
        else:
            receipts.append(answer)
            log.debug("judged client=%s sequence=%d verdict=%s", client_id, offer.update.sequence, answer.verdict)
            if answer.verdict == "rejected":
                log.warning("rejected client=%s sequence=%d reason=%s detail=%r",
                            client_id, offer.update.sequence, answer.reason, answer.detail)  # fmt: skip
        if self._judged() != judged:  # else the answer was committed long ago, or is none that has to be
            if self._uncommitted == 0:
                self._uncommitted_since = now
            self._uncommitted += 1

    def _judged(self) -> int:
        return self._core.state.accepted + self._core.state.rejected.total()

    def _meet(self, presence: AggregatorPresence) -> None:
        """One live aggregator per federation: the older gives way, as the broker gave the connection to the newer.

        The one that gives way takes the connection once more to learn why it lost it, so the other must not take its
        farewell for news of a third.
        """
        if presence.incarnation == self._incarnation:
            self._heard_own_presence = True
        elif self._connections == 1 and not self._heard_own_presence:
            self._predecessors.add(presence.incarnation)
        elif presence.incarnation not in self._predecessors and (self._connections > 1 or presence.state == "online"):
            self.stop(Ending(1, "another aggregator serves this federation now; stop one of the two"))

    def _commit(self) -> None:
        state = self._core.state
        state.seconds = self.now()
        news = self._core.take()
        if self._store is not None:
            self._store.commit(state, news)
        self._uncommitted = 0
        self._committed, self._committed_end = state.version, state.finished
        for record in news.versions:
            log.info("version=%d updates=%d why=%s clients_at_work=%.1f",
                     record.version, len(record.updates), record.why, state.tempo.clients_at_work)  # fmt: skip
            self.on_version(record)

    def _answer(self) -> None:
        if self._uncommitted:
            return
        replies, self._replies = self._replies, OrderedDict()
        for client_id, (receipts, missing) in replies.items():
            for first in range(0, max(len(receipts), len(missing)), _REPLY_ANSWERS):
                part = slice(first, first + _REPLY_ANSWERS)
                reply = Reply(
                    run=self._core.state.run,
                    incarnation=self._incarnation,
                    receipts=tuple(receipts[part]),
                    missing=tuple(missing[part]),
                )
                self._link.publish(self._topics.reply(client_id), encode(reply))

    def _take_evaluation(self, now: float) -> None:
        result = self._evaluator.take() if self._evaluator else None
        if result is None:
            return
        version, metrics = result
        if isinstance(metrics, Exception):
            log.error("evaluation failed version=%d error=%r", version, metrics)
            return
        self._core.measured(version, metrics, now)
        self._publisher.measured(version, metrics)

    def _start_evaluation(self) -> None:
        version = self._core.state.version
        if self._evaluator is not None and self._evaluator.idle and version > self._evaluated:
            self._evaluated = version
            self._evaluator.start(version, self._core.state.weights.copy())

    def _finish(self, now: float) -> None:
        """End when the last version is measured and devices can hear that the run is finished; until then, go on."""
        if self._end_by is None:
            self._end_by = now + _LAST_EVALUATION_SECONDS
        state, evaluator = self._core.state, self._evaluator
        if evaluator is not None and now < self._end_by:
            if not evaluator.idle or self._evaluated < state.version:
                return
            self._take_evaluation(now)
        if self._core.news.measured:
            self._commit()
        self._publisher.publish(self._core, now, at_once=True)
        if self._publisher.shows_end and self._link.flush(_LAST_WORD_SECONDS):
            self.stop(Ending(0, f"finished: {state.finished}"))
