"""What clients say, taken in: who may speak, what is judged now, later or in a thread, and what each is told.

What is told at once promises nothing; a verdict waits for its commit.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from fedmq.aggregator.aside import LARGE_BYTES
from fedmq.aggregator.commits import Commits
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.disk_fault import DiskFault
from fedmq.aggregator.door import Door
from fedmq.aggregator.gate import Gate
from fedmq.aggregator.judged import Judged
from fedmq.aggregator.judging import Answer, Judging
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.replies import Replies
from fedmq.aggregator.shares import Shares
from fedmq.aggregator.sparing import Sparing
from fedmq.aggregator.transfers import Transfers
from fedmq.aggregator.turns import Turns
from fedmq.aggregator.vectors import Step
from fedmq.schemas.errors import ProtocolError, Reason, StoreError
from fedmq.schemas.messages import ClientStatus, Later, Missing, Need, Offer, Part, UpdateId
from fedmq.schemas.topics import Topics, is_id
from fedmq.schemas.wire import decode
from fedmq.transport.link import Link, Message
from fedmq.transport.spool import Spool

__all__ = ["Reception"]

log = logging.getLogger("fedmq.aggregator")

_MOST_STATUS_BYTES = 1 << 16  # that is kept for a moment; no header may be larger
_HELD_SECONDS = 1.0  # until an update is offered again while a huge buffer is written


class Reception:
    """Between the link and the core.

    Args:
        link: to the broker.
        topics: of the federation.
        core: what decides.
        incarnation: of this aggregator.
        gate: whether updates may be taken.
        commits: what verdicts wait for.
        disk: whether it works.
        publisher: asked for parts of snapshots, and what shows who was heard.
        transfers: takes updates that come in parts; None for links on which any message fits.
        door: who is listened to.
        sparing: which lines of the log are written.
        most_bytes: of a message; None for what the link takes.
        step: called after each step of what happens to an update, with its name.
        now: seconds of the run.

    Attributes:
        core: another one when the disk had failed.

    """

    def __init__(
        self,
        *,
        link: Link,
        topics: Topics,
        core: AggregatorCore,
        incarnation: str,
        gate: Gate,
        commits: Commits,
        disk: DiskFault,
        publisher: Publisher,
        transfers: Transfers | None,
        door: Door,
        sparing: Sparing,
        most_bytes: int | None,
        step: Step,
        now: Callable[[], float],
    ) -> None:
        self.core = core
        self._link = link
        self._topics = topics
        self._updates, self._replies = topics.updates.removesuffix("+"), topics.replies.removesuffix("+")
        self._incarnation = incarnation
        self._gate = gate
        self._commits = commits
        self._disk = disk
        self._publisher = publisher
        self._transfers = transfers
        self._door = door
        self._sparing = sparing
        self._most_bytes = most_bytes or sys.maxsize
        self._judging = Judging(link.wake)
        self._turns = Turns(max(LARGE_BYTES, 2 * min(self._most_bytes, link.max_message_bytes)))
        self._shares = Shares()
        self._failed: tuple[str, Offer, Exception] | None = None
        self._statuses: dict[str, Message] = {}  # each client's newest, while the core or its buffer is a thread's
        self._step = step
        self._now = now

    @property
    def busy(self) -> bool:
        """Whether the core is a thread's, which judges or makes a version."""
        return self._judging.busy

    @property
    def may_judge(self) -> bool:
        """Whether an update or an offer waits for nothing else."""
        return bool(self._turns) and not self._occupied

    @property
    def coming_until(self) -> float:
        """The time until which another update most likely comes to be judged."""
        if self._turns:
            return float("inf")
        return float("-inf") if self._transfers is None else self._transfers.coming_until

    def received(self, message: Message) -> bool:
        """Take in what a client said or shows; whether a client writes on this topic.

        Raises:
            ProtocolError: it cannot be read.

        """
        topic = message.topic
        if topic.startswith(self._updates):
            client_id = topic[len(self._updates) :]
            if not is_id(client_id):
                raise ProtocolError("malformed", f"{client_id[:80]!r} is no client id")
            if self._door.holds(client_id):
                if (later := self._door.hold_off(client_id, message.payload)) is not None:
                    self._reply(client_id, later)
            else:
                self._told(client_id, message)
            return True
        sender = self._topics.sender(topic)
        if sender is None:
            return False
        if message.payload:
            self._door.wasted(sender)
            if self._at_work:
                if len(message.payload) > _MOST_STATUS_BYTES:
                    raise ProtocolError("too_large", f"a status of {len(message.payload)} bytes")
                self._statuses[sender] = message
            else:
                self._take_status(sender, message)
        return True

    def _take_status(self, client_id: str, message: Message) -> None:
        """A client came or went. Raises ProtocolError: it cannot be read."""
        if self._door.holds(client_id):
            self.core.state.later["quarantine"] += 1
            return
        status, _ = decode(message.payload, ClientStatus)
        self.core.presence(client_id, status.state == "online", self._now())

    def tick_core(self, now: float) -> None:
        """Have the core do what is due; in a thread, if it makes a version of much that a rule has kept."""
        core = self.core
        if self._takes_long(core.closing_bytes(now)):
            self._judging.start_tick(lambda: core.tick(now))
        else:
            core.tick(now)

    def judge_next(self) -> None:
        """Judge the updates that wait, and answer the offers, until one of them takes a thread."""
        while self.may_judge:
            client_id, offer, body = self._turns.next()
            if client_id in self._door.out():  # since it came
                self._turn_away(client_id, offer)
            else:
                self._judge(client_id, offer, body)

    def judged(self, timeout: float = 0.0) -> bool:
        """Go on with what a thread has done, if it has within `timeout` seconds; whether the core is no thread's."""
        done = self._judging.take(timeout)
        if self._judging.busy:
            return False
        if done is not None and isinstance(done.answer, StoreError):
            self._no_room(done.client_id, done.offer.update, done.answer)
        elif done is not None:
            if isinstance(done.answer, Judged) and done.answer.reason is not None:
                # What counts is no matter of shares here: the link is served meanwhile, and clients take turns.
                self._spent(done.client_id, done.answer, self._now() - done.begun, done.begun)
            self._verdict(done.client_id, done.offer, done.answer, done.before, self._now())
        if self._commits.holds:  # whoever is gone or shut out may be the last that a cohort waits for
            return True
        for client_id in self._door.settle():
            self._shut_out(client_id)
        statuses, self._statuses = self._statuses, {}
        for client_id, message in statuses.items():
            try:
                self._take_status(client_id, message)
            except ProtocolError as error:
                self._door.unreadable(message.topic, message.payload, error)
        return True

    def answer(self, replies: Replies) -> None:
        """Tell clients what became of their offers."""
        for client_id, reply in replies.messages(self.core.state.run, self._incarnation, self._link.max_message_bytes):
            # A lost one is healed by the next offer, as is one that the broker acknowledged and lost.
            self._link.publish(self._replies + client_id, reply, qos=0)  # an id, as `received` has seen
            self._step("receipt-sent")

    def committing(self) -> None:
        """All that was decided until now is in the commit that begins."""
        self._door.committing()
        if self._transfers is not None:
            self._transfers.committing()

    def committed(self) -> None:
        """The commit that had begun is on the disk."""
        self._door.committed()
        if self._transfers is not None:
            self._transfers.committed()

    def forget(self) -> None:
        """The verdicts since the last commit are void: whoever waits for one will offer again."""
        self._turns.clear()
        self._door.forget()
        if self._transfers is not None:
            self._transfers.forgotten()

    def reloaded(self, core: AggregatorCore) -> None:
        """The core that goes on from the last commit. The update that broke the one before must not come back."""
        self.forget()
        self.core = self._door.core = core
        failed, self._failed = self._failed, None
        if failed is not None:
            (client_id, offer, error), judged = failed, core.judged
            refusal = ProtocolError("internal", f"the aggregator failed: {type(error).__name__}")
            self._verdict(client_id, offer, core.refuse(client_id, offer, refusal), judged, self._now())

    @property
    def failed(self) -> Exception | None:
        """What broke judging: the core may hold half an update, and nothing of it may be committed or told."""
        return self._failed[2] if self._failed else None

    def _told(self, client_id: str, message: Message) -> None:
        """A client told something about an update or a snapshot. Raises ProtocolError: it cannot be read."""
        if len(message.payload) > self._most_bytes:
            raise ProtocolError("too_large", f"a message of {len(message.payload)} bytes, at most {self._most_bytes}")
        if not self._gate.open:
            self._gate.hold(message)
            return
        said, body = decode(message.payload, Offer, Part, Need)
        self._shares.heard(client_id, self._now())
        accepted, useful = self.core.state.accepted, False
        if client_id in self._door.out():
            if isinstance(said, Offer):
                self._turn_away(client_id, said)
        elif isinstance(said, Offer):
            begun = 0 if body else self._begun
            self._judge(client_id, said, body)
            useful = not body and self._begun > begun
        elif isinstance(said, Part):
            lacked = self._lacks(client_id, said, len(body))
            self._take_part(client_id, said, body)
            useful = lacked and not self._lacks(client_id, said, len(body))  # there was room for it, and a disk
        elif isinstance(said, Need):
            self._publisher.need(client_id, said, self._now())
        if not useful and self.core.state.accepted == accepted:
            self._door.wasted(client_id)

    def _lacks(self, client_id: str, part: Part, size: int) -> bool:
        return self._transfers is not None and self._transfers.lacks(client_id, part, size)

    @property
    def _begun(self) -> int:
        """How many updates in parts have begun to come."""
        return self._transfers.begun if self._transfers is not None else 0

    def _shut_out(self, client_id: str) -> None:
        """A client has come into quarantine: what is half here of it goes, and no round waits for it."""
        held, now = self.core.state.quarantine.held[client_id], self._now()
        log.error("quarantine client=%s reason=%s seconds=%.0f", client_id, held.reason, held.until - held.since)
        self._turns.drop(client_id)
        if self._transfers is not None:
            self._transfers.over(client_id)
        self.core.presence(client_id, False, now)
        self._commits.judged(now)

    def let_go(self, now: float) -> None:
        """Release from quarantine whose time is over, and whom somebody has released; to be called now and then.

        Who is revoked counts no more among those that measure and are heard.
        """
        if self._judging.busy:
            return
        if self._door.let_go(now):
            self._commits.judged(now)
            if self.core.strategy.cohort and self._gate.open:
                self._link.subscribe(self._topics.statuses)  # theirs were not read: the broker shows them again
        if self._gate.online:
            for client_id, later in self._door.heard_again():
                self._tell(client_id, later)
        self._publisher.unheard(self._door.out())

    def _turn_away(self, client_id: str, offer: Offer) -> None:
        """An offer of a client that is revoked; what was judged before keeps its verdict."""
        if self._disk.why is not None or self._at_work:
            return
        if self._transfers is not None:
            self._transfers.over(client_id)
        judged = self.core.judged
        refusal = ProtocolError("revoked", f"client {client_id!r} was taken out of this federation")
        self._commits.replies.add(client_id, self.core.refuse(client_id, offer, refusal))
        if self.core.judged != judged:
            self._commits.judged(self._now())
            self._say_rejected(client_id, offer, "revoked", "")

    @property
    def _at_work(self) -> bool:
        """Whether a thread has the core, or the buffer: no version may be made of it now."""
        return self._commits.holds or self._judging.busy

    @property
    def _occupied(self) -> bool:
        """Whether a thread works on the model, so that another vector of it would be one too many."""
        return self._at_work or self._publisher.making

    def _judge(self, client_id: str, offer: Offer, body: memoryview, spool: Spool | None = None) -> None:
        now, core = self._now(), self.core
        if self._disk.why is not None:
            self._reply(client_id, Later(update=offer.update, reason="disk", seconds=self._disk.offer_again(now)))
            return
        if self._occupied:
            if not self._turns.wait(client_id, offer, body):
                self._reply(client_id, Later(update=offer.update, reason="busy", seconds=_HELD_SECONDS))
            return
        self._publisher.heard(client_id)
        judged, large = core.judged, self._takes_long(core.next_bytes)
        wait = self._shares.wait(client_id, now) if body else 0.0
        if (wait or (body and large)) and spool is None:
            # First what needs no bytes: only what does waits, or takes a thread.
            answer = self._judge_now(client_id, offer, memoryview(b""), None)
            if not isinstance(answer, Missing):
                self._verdict(client_id, offer, answer, judged, now)
                return
        if wait:
            later = Later(update=offer.update, reason="busy", seconds=max(wait, _HELD_SECONDS))
            self._verdict(client_id, offer, later, judged, now)
        elif body and large:
            self._judging.start(
                client_id, offer, judged, now, lambda: self._look_at(client_id, offer, body, spool, now)
            )
        else:
            self._verdict(client_id, offer, self._judge_now(client_id, offer, body, spool), judged, now)

    def _takes_long(self, size: int) -> bool:
        """Whether to work on so many bytes in a thread; where any message fits, no broker is kept waiting."""
        return self._transfers is not None and size > LARGE_BYTES

    def _look_at(
        self, client_id: str, offer: Offer, body: memoryview, spool: Spool | None, now: float
    ) -> Judged | Missing | Later:
        digest = None if spool is None else spool.digest()
        return self.core.judge(client_id, offer, body, now, digest=digest)

    def _judge_now(self, client_id: str, offer: Offer, body: memoryview, spool: Spool | None) -> Answer:
        """Judge it while everybody waits, which is counted. Raises StoreError: the disk refuses its bytes."""
        core, now = self.core, self._now()
        judged, version = core.judged, core.state.version
        try:
            answer = self._look_at(client_id, offer, body, spool, now)
        except StoreError:
            raise
        except Exception as error:
            return error
        if body and isinstance(answer, Judged) and core.judged != judged:
            seconds = self._now() - now
            if core.state.version != version:  # that is the work of all who are in it
                seconds /= len(core.news.versions[-1].updates)
            self._spent(client_id, answer, seconds, now)
        return answer

    def _spent(self, client_id: str, judged: Judged, seconds: float, begun: float) -> None:
        self._shares.spent(client_id, seconds, begun, refused=judged.reason is not None)

    def _verdict(self, client_id: str, offer: Offer, answer: Answer, judged: int, now: float) -> None:
        """What judging has come to; `judged` is how many verdicts the core had given before."""
        core, commits = self.core, self._commits
        if not isinstance(answer, Judged):
            if isinstance(answer, Later):  # whatever is here of it stays
                if self._transfers is not None:
                    self._transfers.put_off(client_id, offer)
                self._reply(client_id, answer)
            elif isinstance(answer, Missing):
                self._ask(client_id, offer, answer, now)
            else:
                log.error("judging failed client=%s sequence=%d", client_id, offer.update.sequence, exc_info=answer)
                self._failed = client_id, offer, answer.with_traceback(None)  # its frames hold vectors
                self._disk.doubted(f"judging an update failed: {type(answer).__name__}", now)
            return
        if self._transfers is not None:
            self._transfers.judged(client_id, offer)
        commits.replies.add(client_id, answer)
        if core.judged == judged:
            return  # the answer was committed before, or is about to be
        commits.judged(now)
        self._step("judged")
        if answer.reason is not None:
            self._say_rejected(client_id, offer, answer.reason, answer.detail)
            if self._door.holds(client_id):
                self._shut_out(client_id)

    def _say_rejected(self, client_id: str, offer: Offer, reason: Reason, detail: str) -> None:
        if (left_out := self._sparing.line(client_id, self._now())) is not None:
            log.warning("rejected client=%s sequence=%d reason=%s detail=%r left_out=%d",
                        client_id, offer.update.sequence, reason, detail, left_out)  # fmt: skip

    def _ask(self, client_id: str, offer: Offer, answer: Missing, now: float) -> None:
        """Have the bytes of an update sent, or judge it if they have come before. None of it promises anything."""
        try:
            asked = answer if self._transfers is None else self._transfers.ask(client_id, offer, now)
            if isinstance(asked, Missing | Later):
                self._reply(client_id, asked)
            else:
                self._judge(client_id, offer, asked.view(), asked)
        except StoreError as error:
            self._no_room(client_id, offer.update, error)

    def _take_part(self, client_id: str, part: Part, body: memoryview) -> None:
        if self._transfers is None or self._disk.why is not None:
            return
        now = self._now()
        self._publisher.heard(client_id)
        try:
            answer = self._transfers.take(client_id, part, body, now)
        except StoreError as error:
            self._no_room(client_id, part.update, error)
            return
        if isinstance(answer, Offer):
            self._turns.wait(client_id, answer, memoryview(b""))  # if there is no place, it will be offered again
            self.judge_next()
        elif answer is not None:
            self._reply(client_id, answer)

    def _no_room(self, client_id: str, update: UpdateId, error: StoreError) -> None:
        if (left_out := self._sparing.line(client_id, self._now())) is not None:
            log.error("a part was not kept client=%s left_out=%d: %s", client_id, left_out, error)
        self._reply(client_id, Later(update=update, reason="disk", seconds=self._disk.offer_again(self._now())))

    def _reply(self, client_id: str, answer: Missing | Later) -> None:
        if isinstance(answer, Later):
            self.core.state.later[answer.reason] += 1
        self._tell(client_id, answer)

    def _tell(self, client_id: str, answer: Missing | Later) -> None:
        replies = Replies()
        replies.add(client_id, answer)
        self.answer(replies)
