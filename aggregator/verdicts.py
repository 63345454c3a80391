"""Verdicts on updates, reached now, in turn or in a thread, and what their clients are told.

What is told at once promises nothing; a verdict waits for its commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fedmq.aggregator.aside import LARGE_BYTES
from fedmq.aggregator.commits import Commits
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.disk_fault import DiskFault
from fedmq.aggregator.door import Door
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
from fedmq.schemas.messages import Later, Missing, Offer, UpdateId
from fedmq.schemas.topics import Topics
from fedmq.transport.link import Link
from fedmq.transport.spool import Spool

__all__ = ["Verdicts"]

log = logging.getLogger("fedmq.aggregator")

_HELD_SECONDS = 1.0  # until an update is offered again while a huge buffer is written


class Verdicts:
    """Between those who offer and the core.

    Args:
        link: to the broker.
        topics: of the federation.
        core: what decides.
        incarnation: of this aggregator.
        commits: what verdicts wait for.
        disk: whether it works.
        publisher: works in a thread too, and shows who was heard.
        transfers: takes updates that come in parts; None for links on which any message fits.
        door: who is listened to.
        sparing: which lines of the log are written.
        most_bytes: of an update in one message.
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
        commits: Commits,
        disk: DiskFault,
        publisher: Publisher,
        transfers: Transfers | None,
        door: Door,
        sparing: Sparing,
        most_bytes: int,
        step: Step,
        now: Callable[[], float],
    ) -> None:
        self.core = core
        self._link = link
        self._replies = topics.replies.removesuffix("+")
        self._incarnation = incarnation
        self._commits = commits
        self._disk = disk
        self._publisher = publisher
        self._transfers = transfers
        self._door = door
        self._sparing = sparing
        self._judging = Judging(link.wake)
        self._turns = Turns(max(LARGE_BYTES, 2 * most_bytes))
        self._shares = Shares()
        self._failed: tuple[str, Offer, Exception] | None = None
        self._step = step
        self._now = now

    @property
    def busy(self) -> bool:
        """Whether the core is a thread's, which judges or makes a version."""
        return self._judging.busy

    @property
    def at_work(self) -> bool:
        """Whether a thread has the core, or the buffer: no version may be made of it now."""
        return self._commits.holds or self._judging.busy

    @property
    def may_judge(self) -> bool:
        """Whether an update or an offer waits for nothing else."""
        return bool(self._turns) and not self._occupied

    @property
    def someone_waits(self) -> bool:
        """Whether an update or an offer waits for its turn."""
        return bool(self._turns)

    @property
    def failed(self) -> Exception | None:
        """What broke judging: the core may hold half an update, and nothing of it may be committed or told."""
        return self._failed[2] if self._failed else None

    def heard(self, client_id: str) -> None:
        """A client says something."""
        self._shares.heard(client_id, self._now())

    def offered(self, client_id: str, offer: Offer, body: memoryview, spool: Spool | None = None) -> None:
        """Judge an update, or have it wait for its turn.

        Args:
            client_id: whose topic it came on.
            offer: its header.
            body: the encoded update; empty if it did not come with the offer.
            spool: that the body is in, if it came in parts.

        """
        now, core = self._now(), self.core
        if self._disk.why is not None:
            self.say(client_id, Later(update=offer.update, reason="disk", seconds=self._disk.offer_again(now)))
            return
        if self._occupied:
            if not self._turns.wait(client_id, offer, body):
                self.say(client_id, Later(update=offer.update, reason="busy", seconds=_HELD_SECONDS))
            return
        self._publisher.heard(client_id)
        judged, large = core.judged, self._takes_long(core.next_bytes)
        wait = self._shares.wait(client_id, now) if body else 0.0
        if (wait or (body and large)) and spool is None:
            # First what needs no bytes: only what does waits, or takes a thread.
            answer = self._judge_now(client_id, offer, memoryview(b""), None)
            if not isinstance(answer, Missing):
                self._reached(client_id, offer, answer, judged, now)
                return
        if wait:
            later = Later(update=offer.update, reason="busy", seconds=max(wait, _HELD_SECONDS))
            self._reached(client_id, offer, later, judged, now)
        elif body and large:
            self._judging.start(
                client_id, offer, judged, now, lambda: self._look_at(client_id, offer, body, spool, now)
            )
        else:
            self._reached(client_id, offer, self._judge_now(client_id, offer, body, spool), judged, now)

    def complete(self, client_id: str, offer: Offer) -> None:
        """All parts of this update are here: judge it when its turn comes."""
        self._turns.wait(client_id, offer, memoryview(b""))  # if there is no place, it will be offered again
        self.judge_next()

    def judge_next(self) -> None:
        """Judge the updates that wait, and answer the offers, until one of them takes a thread."""
        while self.may_judge:
            client_id, offer, body = self._turns.next()
            if client_id in self._door.out():  # since it came
                self.turn_away(client_id, offer)
            else:
                self.offered(client_id, offer, body)

    def tick_core(self, now: float) -> None:
        """Have the core do what is due; in a thread, if it makes a version of much that a rule has kept."""
        core = self.core
        if self._takes_long(core.closing_bytes(now)):
            self._judging.start_tick(lambda: core.tick(now))
        else:
            core.tick(now)

    def judged(self, timeout: float) -> bool:
        """Go on with what a thread has done, if it has within `timeout` seconds; whether the core is no thread's."""
        done = self._judging.take(timeout)
        if self._judging.busy:
            return False
        if done is not None and isinstance(done.answer, StoreError):
            self.no_room(done.client_id, done.offer.update, done.answer)
        elif done is not None:
            if isinstance(done.answer, Judged) and done.answer.reason is not None:
                # What counts is no matter of shares here: the link is served meanwhile, and clients take turns.
                self._spent(done.client_id, done.answer, self._now() - done.begun, done.begun)
            self._reached(done.client_id, done.offer, done.answer, done.before, self._now())
        return not self._judging.busy

    def turn_away(self, client_id: str, offer: Offer) -> None:
        """An offer of a client that is revoked; what was judged before keeps its verdict."""
        if self._disk.why is not None or self.at_work:
            return
        if self._transfers is not None:
            self._transfers.over(client_id)
        judged = self.core.judged
        refusal = ProtocolError("revoked", f"client {client_id!r} was taken out of this federation")
        self._commits.replies.add(client_id, self.core.refuse(client_id, offer, refusal))
        if self.core.judged != judged:
            self._commits.judged(self._now())
            self._say_rejected(client_id, offer, "revoked", "")

    def shut_out(self, client_id: str) -> None:
        """A client has come into quarantine: what is half here of it goes, and no round waits for it."""
        held, now = self.core.state.quarantine.held.get(client_id), self._now()
        if held is not None:  # else so many came at once that it is out again
            log.error("quarantine client=%s reason=%s seconds=%.0f", client_id, held.reason, held.until - held.since)
        self._turns.drop(client_id)
        if self._transfers is not None:
            self._transfers.over(client_id)
        self.core.presence(client_id, False, now)
        self._commits.judged(now)

    def no_room(self, client_id: str, update: UpdateId, error: StoreError) -> None:
        """The disk refuses the bytes of an update."""
        if (left_out := self._sparing.line(client_id, self._now())) is not None:
            log.error("a part was not kept client=%s detail=%r%s", client_id, str(error), left_out)
        self.say(client_id, Later(update=update, reason="disk", seconds=self._disk.offer_again(self._now())))

    def say(self, client_id: str, answer: Missing | Later) -> None:
        """Tell a client what it is to do; that it waits for something is counted."""
        if isinstance(answer, Later):
            self.core.state.later[answer.reason] += 1
        self.repeat(client_id, answer)

    def repeat(self, client_id: str, answer: Missing | Later) -> None:
        """Tell a client what was counted before."""
        replies = Replies()
        replies.add(client_id, answer)
        self.answer(replies)

    def answer(self, replies: Replies) -> None:
        """Tell clients what became of their offers."""
        for client_id, reply in replies.messages(self.core.state.run, self._incarnation, self._link.max_message_bytes):
            # A lost one is healed by the next offer, as is one that the broker acknowledged and lost.
            self._link.publish(self._replies + client_id, reply, qos=0)  # an id, as reception has seen
            self._step("receipt-sent")

    def forget(self) -> None:
        """The verdicts since the last commit are void: whoever waits for one will offer again."""
        self._turns.clear()

    def reloaded(self, core: AggregatorCore) -> None:
        """The core that goes on from the last commit. The update that broke the one before must not come back."""
        self.core = core
        failed, self._failed = self._failed, None
        if failed is not None:
            (client_id, offer, error), judged = failed, core.judged
            refusal = ProtocolError("internal", f"the aggregator failed: {type(error).__name__}")
            self._reached(client_id, offer, core.refuse(client_id, offer, refusal), judged, self._now())

    @property
    def _occupied(self) -> bool:
        """Whether a thread works on the model, so that another vector of it would be one too many."""
        return self.at_work or self._publisher.making

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

    def _reached(self, client_id: str, offer: Offer, answer: Answer, judged: int, now: float) -> None:
        """What judging has come to; `judged` is how many verdicts the core had given before."""
        core, commits = self.core, self._commits
        if not isinstance(answer, Judged):
            if isinstance(answer, Later):  # whatever is here of it stays
                if self._transfers is not None:
                    self._transfers.put_off(client_id, offer)
                self.say(client_id, answer)
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
                self.shut_out(client_id)

    def _ask(self, client_id: str, offer: Offer, answer: Missing, now: float) -> None:
        """Have the bytes of an update sent, or judge it if they have come before. None of it promises anything."""
        try:
            asked = answer if self._transfers is None else self._transfers.ask(client_id, offer, now)
            if isinstance(asked, Missing | Later):
                self.say(client_id, asked)
            else:
                self.offered(client_id, offer, asked.view(), asked)
        except StoreError as error:
            self.no_room(client_id, offer.update, error)

    def _say_rejected(self, client_id: str, offer: Offer, reason: Reason, detail: str) -> None:
        if (left_out := self._sparing.line(client_id, self._now())) is not None:
            log.warning("rejected client=%s sequence=%d reason=%s detail=%r%s",
                        client_id, offer.update.sequence, reason, detail, left_out)  # fmt: skip
