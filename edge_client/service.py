"""The device's loop: from the link to the core, and from the core to the link, the outbox and the training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fedmq.edge_client.actions import (
    Action,
    AskLayout,
    AskPresence,
    AskProgress,
    Delete,
    Follow,
    Renew,
    SendOffer,
    SendPart,
    Stop,
    Train,
)
from fedmq.edge_client.budget import Shortage
from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.diary import Diary
from fedmq.edge_client.echo import Echo
from fedmq.edge_client.feedback import seed_of
from fedmq.edge_client.fetch import Fetch
from fedmq.edge_client.intake import Intake
from fedmq.edge_client.job import Made, make
from fedmq.edge_client.meter import Meter
from fedmq.edge_client.outbox import Outbox
from fedmq.edge_client.remarks import Remarks
from fedmq.edge_client.runner import Runner
from fedmq.edge_client.shown import Shown
from fedmq.edge_client.training import Training
from fedmq.edge_client.turned_away import of_a_login
from fedmq.edge_client.upload import Piece
from fedmq.schemas.errors import FedMQError, ProtocolError, StoreError, TransportError
from fedmq.schemas.layout import Layout
from fedmq.schemas.messages import (
    AggregatorPresence,
    ClientStatus,
    Head,
    LayoutNotice,
    Offer,
    Part,
    Progress,
    Reply,
    UpdateId,
)
from fedmq.schemas.parts import part_bytes
from fedmq.schemas.signing import AGGREGATOR, author
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.transport.link import Connected, Disconnected, Event, Link, Message, Refused

__all__ = ["ClientService"]

log = logging.getLogger("fedmq.client")

# What was refused for no fault of its content goes on in the next update's error feedback. Whatever the aggregator does
# not want (too stale, too late, too long, of another task) would come in with that, all that was ever refused at once.
_PUT_BACK = ("internal", "malformed", "too_large")
_UNASSIGNED = UpdateId(outbox_id="0" * 32, sequence=0)  # until the outbox gives the update its id


class ClientService:
    """One client at work.

    Args:
        link: to the broker, still to be opened.
        topics: of the federation.
        client_id: this device's.
        core: what decides.
        incarnation: random for each process start.
        outbox: what keeps.
        training: what trains.
        runner: where it trains.
        fetch: what takes models that come in parts.
        meter: what the link may carry a day; nothing limits it if None.
        step: called after each step of what happens to an update, with its name.
        clock: seconds.

    Attributes:
        stopped: set when it has ended, with its exit code and why.
        accepted, rejected: receipts read.

    """

    def __init__(
        self,
        *,
        link: Link,
        topics: Topics,
        client_id: str,
        core: ClientCore,
        incarnation: str,
        outbox: Outbox,
        training: Training,
        runner: Runner,
        fetch: Fetch,
        meter: Meter | None = None,
        step: Callable[[str], None] = lambda name: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stopped: Stop | None = None
        self.accepted = self.rejected = 0
        self._link = link
        self._topics = topics
        self._client_id = client_id
        self._core = core
        self._incarnation = incarnation
        self._outbox = outbox
        self._training = training
        self._runner = runner
        self._fetch = fetch
        self._meter = meter or Meter(lambda: link.carried, outbox)
        self._step = step
        self._clock = clock
        self._intake = Intake(client_id, core, training, fetch)
        self._job: tuple[Head, Layout] | None = None
        status = ClientStatus(
            state="online",
            client_id=client_id,
            incarnation=incarnation,
            waiting=len(outbox.pending()),
            task_version=training.task_version,
        )
        self._shown = Shown(link, topics, status, self._meter)
        self._diary = Diary(client_id)
        self._echo = Echo(self._shown, topics, client_id)
        self._remarks = Remarks(client_id, topics.federation, core, fetch, self._meter, self._shown)
        self._asked: Stop | None = None
        self._connected = False
        local = outbox.local()
        if local:
            training.restore(local)

    @property
    def status(self) -> ClientStatus:
        """What it says of itself, now or in a moment."""
        return self._shown.status

    @property
    def paused(self) -> Shortage | None:
        """What does not suffice for going on before tomorrow."""
        return self._core.paused

    @property
    def complaint(self) -> str:
        """The last thing that went wrong, as the status says it; empty when all is well."""
        return self._shown.status.detail

    def handle(self, event: Event) -> None:
        """One event of the link."""
        now = self._clock()
        self._count(now)
        if isinstance(event, Message):
            self._received(event, now)
        elif isinstance(event, Connected):
            self._core.offers.part_bytes = part_bytes(self._link.max_message_bytes)
            # The own status before the first publish: what is retained there may be another process's.
            topics = self._topics
            own = (topics.status(self._client_id), topics.aggregator, topics.reply(self._client_id))
            self._link.subscribe(*own)
            self._connected = True
            self._shown.say(connection=self._shown.status.connection + 1)
            self._perform(self._core.connected(now), now)
            self._fetch.connected(now)
            self._remarks.connected(now)
            log.info("connected client=%s federation=%s", self._client_id, self._topics.federation)
        elif isinstance(event, Disconnected):
            self._connected = False
            self._meter.cut_off()
            self._core.disconnected()
            self._echo.disconnected()
            if event.login_refused:
                self._core.turned_away(now)
            reason = of_a_login(event.reason) if event.login_refused else event.reason
            log.warning("disconnected client=%s reason=%r", self._client_id, reason)
        elif isinstance(event, Refused):
            self._echo.refused(event.topic, event.reason)

    def tick(self) -> None:
        """Do what is due: finished jobs, offers, retraining, status."""
        now = self._clock()
        self._count(now)
        result = self._runner.take()
        if result is not None:
            self._finish_job(result, now)
        self._perform(self._core.tick(now), now)
        if self._fetch.tick(now):
            self._perform(self._intake.fetched(now), now)
        self._remarks.tick(now)
        self._echo.tick(now)
        if self._shown.publish(now):
            self._echo.status_sent(now)

    def deadline(self) -> float | None:
        """When `tick` is due."""
        times = [self._core.deadline(), self._fetch.deadline()]
        if self._connected:
            times.append(self._shown.deadline())
        return min((at for at in times if at is not None), default=None)

    def run(self) -> Stop:
        """Work until it is stopped: by the run's end, an error, or `stop`."""
        self._link.open()
        try:
            while self.stopped is None:
                if self._asked is not None:
                    self.stop(self._asked)
                    break
                deadline = self.deadline()
                event = self._link.poll(1.0 if deadline is None else min(1.0, max(0.0, deadline - self._clock())))
                if event is not None:
                    self.handle(event)
                if self.stopped is None:
                    self.tick()
        except BaseException as error:
            self.stop(Stop(1, str(error) or type(error).__name__))  # people read in the status why it went
            raise
        assert self.stopped is not None
        return self.stopped

    def ask_to_stop(self, why: str) -> None:
        """Have `run` end soon, with code 0. From any thread or signal handler."""
        self._asked = Stop(0, why)
        self._link.wake()

    def refused(self, topic: str, why: str) -> None:
        """A message was not signed as it has to be: people read it in the status."""
        if topic == self._topics.status(self._client_id):
            self.outlived()
        if author(self._topics, topic) == AGGREGATOR:
            self._remarks.refused(why)
        self._shown.say(detail=f"a message on {topic} is refused: {why}")

    def outlived(self) -> None:
        """The broker shows an earlier start's status: after every start once, and it is nothing to complain of."""
        self._shown.contradict(self._clock())

    def stop(self, stop: Stop) -> None:
        """End, saying so: the status goes out, the connection is closed."""
        if self.stopped is not None:
            return
        self.stopped = stop
        activity = "stopped" if stop.code or stop is self._asked else "finished"
        self._shown.say(state="offline", activity=activity, detail=stop.why)
        self._shown.publish(self._clock(), at_once=True)
        self._link.flush(1.0)
        self._link.close()
        self._meter.close()
        (log.info if stop.code == 0 else log.error)("stopped client=%s why=%r", self._client_id, stop.why)

    def _count(self, now: float) -> None:
        """What the link has carried since the last time counts against this day."""
        self._core.allowance = allowance = self._meter.read(now)
        if allowance.downlink == 0:
            self._fetch.rest()

    def _received(self, message: Message, now: float) -> None:
        topics, topic = self._topics, message.topic
        if not message.payload:
            return  # a retained message that was cleared
        if topic not in (topics.aggregator, topics.status(self._client_id)):
            self._shown.carried(down=len(message.payload))
        try:
            if topic == topics.model:
                head, body = decode(message.payload, Head)
                self._perform(self._intake.heard(head, body, now), now)
            elif topic == topics.reply(self._client_id):
                self._echo.answered()
                self._perform(self._core.reply(decode(message.payload, Reply)[0], now), now)
            elif topic == topics.aggregator:
                presence = decode(message.payload, AggregatorPresence)[0]
                if presence.state == "starting":
                    return  # it may never come to more
                self._remarks.aggregator(online=presence.state == "online")
                if presence.state != "online" or presence.detail:
                    self._echo.aggregator_gone()
                self._perform(self._core.presence(presence, now), now)
            elif topic == topics.layout:
                notice, body = decode(message.payload, LayoutNotice)
                actions = self._intake.learned(notice, body, now)
                self._link.unsubscribe(topics.layout)
                self._perform(actions, now)
            elif topic == topics.progress:
                self._link.unsubscribe(topic)
                self._perform(self._core.progress(decode(message.payload, Progress)[0]), now)
            elif topic == topics.status(self._client_id):
                status = decode(message.payload, ClientStatus)[0]
                if (status.incarnation, status.state) == (self._incarnation, "offline"):
                    self._shown.contradict(now)
                elif status.incarnation == self._incarnation:
                    self._echo.status_heard()
                self._perform(self._core.own_status(status, now), now)
            elif self._fetch.take(topic, message.payload, now):
                self._perform(self._intake.fetched(now), now)
        except ProtocolError as error:
            if topic == topics.model:
                self._remarks.unreadable(str(error))
            log.error(
                "ignored client=%s topic=%s reason=%s detail=%r", self._client_id, topic, error.reason, str(error)
            )
            self._shown.say(detail=f"a message on {topic} is ignored: {error}")

    def _perform(self, actions: list[Action], now: float) -> None:
        for action in actions:
            if self.stopped is not None:
                return
            match action:
                case Follow(on):
                    (self._link.subscribe if on else self._link.unsubscribe)(self._topics.model)
                    if on:
                        self._perform(self._intake.fetched(now), now)
                case AskLayout():
                    self._link.subscribe(self._topics.layout)
                case AskPresence():
                    self._link.subscribe(self._topics.aggregator)
                case AskProgress():
                    self._link.subscribe(self._topics.progress)
                case Train(head):
                    self._start_job(head)
                case SendOffer(sequence, with_body, number):
                    self._send(sequence, with_body, number)
                case SendPart(sequence, piece):
                    self._send_part(sequence, piece)
                case Delete(sequence, receipt):
                    self._step("receipt-read")
                    size = self._outbox.offer(sequence).size
                    returns = receipt.verdict == "rejected" and receipt.reason in _PUT_BACK
                    self._outbox.delete(sequence, forgotten=receipt.reason == "expired", returns=returns)
                    self._step("deleted")
                    if receipt.verdict == "accepted":
                        self.accepted += 1
                        self._diary.accepted(sequence, receipt, size, now)
                    else:
                        self.rejected += 1
                        log.warning("rejected client=%s sequence=%d reason=%s detail=%r",
                                    self._client_id, sequence, receipt.reason, receipt.detail)  # fmt: skip
                        self._shown.say(detail=f"update {sequence} rejected ({receipt.reason}): {receipt.detail}")
                    waiting = max(0, self._shown.status.waiting - 1)
                    self._shown.say(accepted=self.accepted, rejected=self.rejected, waiting=waiting)
                case Renew(sequence):
                    renewed = self._outbox.renew(sequence)
                    log.warning("outbox renewed client=%s sequence=%d", self._client_id, sequence)
                    self._perform(self._core.renewed(renewed.update, now), now)
                case Stop():
                    self.stop(action)

    def _start_job(self, head: Head) -> None:
        assert self._intake.snapshot is not None
        body, layout = self._intake.snapshot
        self._job = (head, layout)
        self._shown.say(activity="training", run=head.run)
        self._remarks.begins(layout, head)
        training, residual, ahead = self._training, self._outbox.residual(), self._outbox.ahead()
        seed = seed_of(head.run, self._client_id, head.version, ahead.sequence)

        def job() -> Made:
            return make(head, body, layout, training, residual, seed, ahead)

        self._runner.start(job)

    def _finish_job(self, result: Made | Exception, now: float) -> None:
        assert self._job is not None
        head, layout = self._job
        if isinstance(result, StoreError):
            raise result
        if isinstance(result, Exception):
            said = str(result) if isinstance(result, FedMQError) else f"{type(result).__name__}: {result}"
            log.error("training failed client=%s version=%d error=%r", self._client_id, head.version, said,
                      exc_info=None if isinstance(result, FedMQError) else result)  # fmt: skip
            self._shown.say(activity="error", detail=f"the training failed: {said}")
            self._perform(self._core.failed(now), now)
            return
        outcome = result.outcome
        offer = Offer(
            run=head.run,
            client_id=self._client_id,
            update=_UNASSIGNED,
            base_version=head.version,
            layout=layout.digest,
            codec=result.codec,
            size=result.size,
            digest=result.digest,
            num_samples=outcome.num_samples,
            metrics=outcome.metrics,
            evaluation=outcome.evaluation,
            task_version=self._training.task_version,
        )
        self._step("trained")
        offer, dropped = self._outbox.add(offer, result.ahead, outcome.local)
        self._step("stored")
        if dropped:
            log.warning("outbox full client=%s dropped=%s", self._client_id, dropped)
        waiting = self._shown.status.waiting + 1 - len(dropped)
        heard_soon = waiting == 1 and self._core.reached
        self._diary.trained(head.version, offer.update.sequence, now, heard_soon=heard_soon)
        metrics = outcome.evaluation.metrics if outcome.evaluation else outcome.metrics
        self._shown.say(activity="waiting", base_version=head.version, waiting=waiting, metrics=metrics, detail="")
        self._perform(self._core.trained(offer, dropped, now), now)

    def _send(self, sequence: int, with_body: bool, number: int | None = None) -> None:
        offer = self._outbox.offer(sequence).model_copy(update={"number": number})
        self._publish(encode(offer, self._outbox.body(sequence) if with_body else b""), "offered")

    def _send_part(self, sequence: int, piece: Piece) -> None:
        offer = self._outbox.offer(sequence)
        part = Part(run=offer.run, update=offer.update, digest=offer.digest, offset=piece.start, number=piece.number)
        self._publish(encode(part, self._outbox.body(sequence, piece.start, piece.end)), "part-sent")

    def _publish(self, payload: bytes, step: str) -> None:
        self._meter.promise(len(payload))
        try:
            if self._link.publish(self._topics.update(self._client_id), payload):
                self._shown.carried(up=len(payload))
                self._echo.update_sent(self._clock())
                self._step(step)
        except TransportError as error:
            self.stop(Stop(2, f"an update cannot be sent: {error}"))
