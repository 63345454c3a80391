"""The aggregator's loop: from the link to the core, from the core to the store, and only then back to the link.

Receipts, snapshots and progress follow from committed state alone. What the disk does not take is forgotten, and the
last commit read again: to the clients that is a moment in which nothing was answered.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from fedmq.aggregator.attention import Attention
from fedmq.aggregator.commits import Commits, Done
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.disk_fault import DiskFault
from fedmq.aggregator.door import Door
from fedmq.aggregator.evaluations import Evaluations
from fedmq.aggregator.evaluator import Evaluator
from fedmq.aggregator.fence import Fence
from fedmq.aggregator.gate import Gate, PresenceState
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.reception import Reception
from fedmq.aggregator.releases import Releases
from fedmq.aggregator.revoked import Revoked
from fedmq.aggregator.sparing import Sparing
from fedmq.aggregator.state import VersionRecord
from fedmq.aggregator.store import Store
from fedmq.aggregator.transfers import Transfers
from fedmq.aggregator.vectors import Step, nothing
from fedmq.aggregator.verdicts import Verdicts
from fedmq.aggregator.waiting import Waiting
from fedmq.schemas.codecs import CODECS, codec_named
from fedmq.schemas.errors import ProtocolError, StoreError
from fedmq.schemas.messages import AggregatorPresence
from fedmq.schemas.topics import Topics
from fedmq.transport.link import Connected, Disconnected, Event, Link, Message, Refused

__all__ = ["AggregatorService", "Ending"]

log = logging.getLogger("fedmq.aggregator")

_TICK_SECONDS = 0.005  # between two ticks while there is more to read: nothing that they do is finer than that
_VERSIONS_AT_ONCE = 100  # that have a line of the log; then one a second has
_LOOK_SECONDS = 1.0  # between two looks for who leaves the quarantine, and whether a version waits for too long
_LAST_WORD_SECONDS = 5.0  # until the broker has taken what a finished run shows last; then it is tried again
_LAST_COMMIT_SECONDS = 2.5  # that a stop waits for the disk; with all that follows it ends within five


@dataclass(frozen=True, slots=True)
class Ending:
    """How the service ended: 0 for a finished run or a stop that was asked for, 2 if a start would end the same way."""

    code: int
    why: str


class AggregatorService:
    """One aggregator at work.

    Args:
        link: to the broker, still to be opened.
        topics: of the federation.
        core: what decides.
        publisher: what shows.
        incarnation: random for each process start.
        fence: what it may overwrite; nothing of another run if None.
        store: what keeps; nothing is kept if None.
        transfers: takes updates that come in parts; None for links on which any message fits.
        revoked: devices that are out; nobody if None.
        let_in: called when it may take updates, in every connection; whether what the broker shows may stay there.
        attention: told which messages led nowhere; the link may ask it. An own one if None.
        releases: clients that somebody lets out of quarantine; nobody if None.
        most_message_bytes: that clients may send at once; None for what the link takes.
        reload: a core that goes on from the last commit, for when the disk failed; without it a failure is the end.
        evaluator: the aggregator's own evaluation.
        step: called after each step of what happens to an update, with its name.
        clock: seconds.

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
        fence: Fence | None = None,
        store: Store | None = None,
        transfers: Transfers | None = None,
        revoked: Revoked | None = None,
        let_in: Callable[[], bool] = lambda: True,
        releases: Releases | None = None,
        attention: Attention | None = None,
        most_message_bytes: int | None = None,
        reload: Callable[[], AggregatorCore] | None = None,
        evaluator: Evaluator | None = None,
        step: Step = nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ended: Ending | None = None
        self.on_version: Callable[[VersionRecord], None] = lambda record: None
        self._link = link
        self._topics = topics
        self._core = core
        self._publisher = publisher
        self._incarnation = incarnation
        self._gate = Gate(link, topics, fence or Fence(incarnation), self._presence)
        self._let_in = let_in
        self._reload = reload
        self._evaluations = Evaluations(evaluator)
        self._step = step
        self._clock = clock
        self._begun = clock() - core.state.seconds
        self._commits = Commits(store, link.wake, self.now)
        self._disk = DiskFault()
        sparing = Sparing()
        self._door = Door(
            topics=topics, core=core, attention=attention or Attention(clock), revoked=revoked or Revoked(None),
            releases=releases or Releases(None), sparing=sparing, now=self.now,
        )  # fmt: skip
        self._verdicts = Verdicts(
            link=link, topics=topics, core=core, incarnation=incarnation, commits=self._commits, disk=self._disk,
            publisher=publisher, transfers=transfers, door=self._door, sparing=sparing,
            most_bytes=min(most_message_bytes or sys.maxsize, link.max_message_bytes), step=step, now=self.now,
        )  # fmt: skip
        self._reception = Reception(
            link=link, topics=topics, core=core, gate=self._gate, commits=self._commits, disk=self._disk,
            publisher=publisher, transfers=transfers, door=self._door, verdicts=self._verdicts,
            most_bytes=most_message_bytes, now=self.now,
        )  # fmt: skip
        self._versions_said = Sparing(_VERSIONS_AT_ONCE, 1.0)
        self._waiting = Waiting()
        self._look_at = 0.0  # see _LOOK_SECONDS
        self._asked: Ending | None = None
        # What is in memory is committed before anyone hears of it, version 0 too.
        self._commit(self.now())
        self._tell(self._commits.take(None))

    @property
    def committed(self) -> int:
        """The newest version that is on the disk."""
        return self._commits.version

    def now(self) -> float:
        """Seconds of the run."""
        return self._clock() - self._begun

    def handle(self, event: Event) -> None:
        """One event of the link."""
        if isinstance(event, Message):
            self._received(event)
        elif isinstance(event, Connected):
            self._gate.connected(self.now())
        elif isinstance(event, Disconnected):
            log.warning("disconnected reason=%r", event.reason)
            self._publisher.disconnected()
            self._gate.disconnected()
            self._commits.replies.clear()  # whoever waits for them will offer again
        elif isinstance(event, Refused):
            log.error("refused topic=%s reason=%r", event.topic, event.reason)

    def tick(self, *, idle: bool = True) -> None:
        """Do what is due; `idle` says that nothing waits to be read."""
        now = self.now()
        self._gate.tick(now)
        self._publisher.work(now)
        commits, core = self._commits, self._core
        try:
            if self._disk.why is not None:
                self._try_disk(now)
                return
            if not self._verdicts.judged(0.0) or self._disk.why is not None:
                return
            self._reception.settle()
            self._tell(commits.take(0.0))
            if not commits.holds:  # else the buffer may not change, and a version would be made of it
                self._evaluations.take(core)
                self._verdicts.tick_core(now)  # which sees whether that reaches the goal
                if self._verdicts.busy:
                    return
            if now >= self._look_at:
                self._look_at = now + _LOOK_SECONDS
                self._reception.let_go(now)
                self._look_for_a_wait(now)
            wanted = self._publisher.due(core.state.version, core.state.finished, now)
            # A commit between two parts would be one for each update.
            idle = idle and now >= self._reception.coming_until
            if commits.due(core, idle=idle, wanted=wanted):
                self._commit(now)
            self._verdicts.judge_next()
            if self._verdicts.busy or self._disk.why is not None:
                return
        except StoreError as error:
            self._disk_failed(error, now)
            return
        if commits.is_all(core):
            self._verdicts.answer(commits.replies.take())  # what was committed before
        self._show(now)
        self._evaluations.start(commits, core)
        if self._core.state.finished is not None and self.ended is None:
            self._finish(now)

    def deadline(self) -> float | None:
        """When `tick` is due even if nothing happens, in seconds of the run."""
        commits, core = self._commits, self._core
        if self._disk.why is not None:
            times: list[float | None] = [] if commits.busy else [self._disk.retry_at]  # the writer wakes the link
        elif self._verdicts.busy:
            times = [self._gate.deadline(), self._publisher.work_deadline()]
        else:
            if self._verdicts.may_judge:
                return self.now()
            commit = commits.deadline(core)
            if commit is not None:
                commit = max(commit, self._reception.coming_until)
            times = [commit, self._gate.deadline(), self._publisher.work_deadline()]
            if not commits.holds:
                times.append(core.deadline())
            if commits.may_show(core):
                times.append(self._publisher.deadline(commits.version, commits.finished))
        return min((at for at in times if at is not None), default=None)

    def run(self) -> Ending:
        """Work until the run is finished or `stop` is called."""
        self._link.open()
        hurried, ticked_at = False, 0.0
        try:
            while self.ended is None:
                if self._asked is not None:
                    self.stop(self._asked)
                    break
                if not hurried and self._commits.full:
                    time.sleep(0.01)  # the senders wait in TCP
                    self.tick(idle=False)
                    continue
                event = self._link.poll(0.0 if hurried else self._patience())
                if event is not None:
                    self.handle(event)
                now = self.now()
                hurried = event is not None and now < ticked_at + _TICK_SECONDS
                if self.ended is None and not hurried:
                    ticked_at = now
                    self.tick(idle=event is None)
        except BaseException as error:
            # What is in memory may not be on the disk: nothing more of it is told than that it goes.
            self._leave(Ending(1, str(error) or type(error).__name__))
            raise
        assert self.ended is not None
        return self.ended

    def _patience(self) -> float:
        """Seconds until something is due, but no more than one."""
        deadline = self.deadline()
        return 1.0 if deadline is None else min(1.0, max(0.0, deadline - self.now()))

    def ask_to_stop(self, why: str) -> None:
        """Have `run` end soon, with code 0. From any thread or signal handler."""
        self._asked = Ending(0, why)
        self._link.wake()

    def refused(self, topic: str, why: str) -> None:
        """A message was not signed as it has to be. It has no verdict: who sent it may be anyone."""
        self._door.forged(topic)

    def unverified(self, topic: str) -> None:
        """The same, and it is signed: with a key that is not known."""
        self._gate.unverified(topic)

    def stop(self, ending: Ending) -> None:
        """Commit if that is soon done, say goodbye, end. What is not committed will be offered again.

        With another code than 0 the run is another's now: nothing more is committed, told or shown, not even a goodbye.
        """
        if self.ended is not None:
            return
        if ending.code:
            self._leave(ending, quietly=True)
            return
        commits, until = self._commits, self._clock() + _LAST_COMMIT_SECONDS
        if not self._verdicts.judged(_LAST_COMMIT_SECONDS):
            self._leave(ending)
            return
        self._reception.settle()
        try:
            self._tell(commits.take(max(0.0, until - self._clock())))
            soon = self._clock() + commits.lasted < until and not commits.busy
            if self._disk.why is None and commits.is_news(self._core) and soon:
                self._commit(self.now())
                self._tell(commits.take(max(0.0, until - self._clock())))
        except StoreError as error:
            log.error("not committed, will be offered again: %s", error)
        else:
            self._show(self.now(), at_once=True)
        self._leave(ending)

    @property
    def writing(self) -> bool:
        """Whether a commit is still being written."""
        return self._commits.busy

    def _leave(self, ending: Ending, *, quietly: bool = False) -> None:
        if self.ended is not None:
            return
        self.ended = ending
        if self._gate.open and not quietly:
            self._gate.say("offline")
        self._link.flush(1.0)
        self._link.close()
        (log.info if ending.code == 0 else log.error)("stopped version=%d why=%r", self.committed, ending.why)

    def _may_begin(self) -> None:
        """The gate is open: take updates, and show what is committed."""
        self._link.subscribe(self._topics.updates)
        if self._core.strategy.cohort:
            self._link.subscribe(self._topics.statuses)
        self._publisher.connected(self._gate.shown if self._let_in() else None, self.now())
        log.info("connected run=%s version=%d", self._core.state.run, self.committed)
        self._show(self.now(), at_once=True)  # before updates of it are judged: some strategies need its weights
        for message in self._gate.release():
            self._received(message)

    def _presence(self, state: PresenceState) -> AggregatorPresence:
        return AggregatorPresence(
            state=state,
            run=self._core.state.run,
            incarnation=self._incarnation,
            version=self.committed,
            detail=(self._disk.why or "")[:2000],
        )

    def _received(self, message: Message) -> None:
        try:
            if not self._reception.received(message):
                self._shown_by_others(message.topic, message.payload)
        except ProtocolError as error:
            self._door.unreadable(message.topic, message.payload, error)

    def _shown_by_others(self, topic: str, payload: bytes) -> None:
        why, state = self._gate.heard(topic, payload), self._core.state
        code = 1  # another has taken its place, and may be gone at the next start
        if self._gate.complete:
            why, replaced = self._gate.decide(state.run, self.committed, self._digest, state.accepted, state.verdicts)
            if replaced is not None and replaced not in state.replaced:
                state.replaced.append(replaced)  # kept with the next commit
            if self._gate.open:
                self._may_begin()
            code = 2  # what the broker shows is there at the next start too
        if why is not None:
            self.stop(Ending(code, why))

    def _digest(self, codec: str) -> str | None:
        """Of the committed weights in a codec; None if they have moved since, or the codec is unknown."""
        weights = self._commits.weights(self._core)
        if codec not in CODECS or weights is None:
            return None
        return hashlib.sha256(codec_named(codec).encode(weights, self._core.state.layout)).hexdigest()

    def _commit(self, now: float) -> None:
        """Begin a commit of everything that is in memory; it may be done at once. Raises StoreError."""
        self._core.state.seconds = now
        self._reception.committing()
        self._tell(self._commits.begin(self._core))

    def _tell(self, done: Done | None) -> None:
        """What follows from a commit that is done."""
        if done is None:
            return
        self._reception.committed()
        self._verdicts.answer(done.replies)
        self._commits.told()
        for version, metrics in done.news.measured.items():
            self._publisher.measured(version, metrics)
        for record in done.news.versions:
            at_work = self._core.state.tempo.clients_at_work
            if (left_out := self._versions_said.line("", self.now())) is not None:
                log.info("version=%d updates=%d why=%s clients_at_work=%.1f%s",
                         record.version, len(record.updates), record.why, at_work, left_out)  # fmt: skip
            self.on_version(record)

    def _look_for_a_wait(self, now: float) -> None:
        if self._gate.online:
            self._waiting.look(self._core, now)
        else:
            self._waiting.begin()
        self._publisher.waits(self._waiting.said)

    def _disk_failed(self, error: StoreError, now: float) -> None:
        """Forget everything since the last commit; go on from there when the disk works again."""
        if self._reload is None:
            raise error
        first = self._disk.why is None
        log.error("the disk failed, trying again in %.0f s: %s", self._disk.failed(str(error), now), error)
        self._commits.forget()
        self._reception.forget()
        if first and self._gate.open:
            self._gate.say("online")  # with what is wrong

    def _try_disk(self, now: float) -> None:
        failed = self._verdicts.failed
        if failed is not None and self._commits.busy:
            self._tell(self._commits.take(0.0))  # of what was there before
            return
        if failed is not None and self._reload is None:
            raise failed
        assert self._reload is not None
        if not self._commits.busy:
            if now < self._disk.retry_at:
                return
            self._commits.forget()
            self._core = self._reload()
            self._reception.reloaded(self._core)
            self._commit(now)  # all of it, so that the disk is known to take it
        self._tell(self._commits.take(0.0))
        if self._commits.busy:
            return
        log.info("going on from the last commit version=%d", self.committed)
        self._disk.over()
        self._evaluations.start_over()
        if self._gate.online:
            self._gate.say("online")
            self._may_begin()

    def _show(self, now: float, *, at_once: bool = False) -> None:
        """Show what is committed, if it is due."""
        commits, core = self._commits, self._core
        if self._disk.why is not None or self._verdicts.busy or not commits.may_show(core):
            return
        if not (at_once or self._publisher.due(commits.version, commits.finished, now)):
            return
        committed = commits.committed(core)
        shown = self._publisher.publish(committed, core.strategy.name, str(core.goal), now, at_once=at_once)
        if shown is not None:
            self._step("snapshot-sent")
            version, received = shown
            core.published(version, received, now)

    def _finish(self, now: float) -> None:
        """End when the last version is measured and devices can hear that the run is finished; until then, go on."""
        if not self._evaluations.complete(self._core, now):
            return
        if not self._commits.is_all(self._core):
            return  # the next tick commits it
        self._show(now, at_once=True)
        if self._publisher.shows_end and self._link.flush(_LAST_WORD_SECONDS):
            self.stop(Ending(0, f"finished: {self._core.state.finished}"))
