"""The device's decisions: what it hears in, what to do out. No clock, thread, socket, disk or log; randomness comes in.

While it trains it is not subscribed to the model. When its update is in it subscribes, and the newest is there at once.
Every update is offered until it has a receipt; every answer is the whole state, so nothing depends on one message.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from fedmq.edge_client.actions import (
    Action,
    AskLayout,
    AskPresence,
    Delete,
    Follow,
    Renew,
    SendOffer,
    SendPart,
    Stop,
    Train,
)
from fedmq.edge_client.budget import Allowance, Shortage
from fedmq.edge_client.upload import Upload
from fedmq.schemas.messages import AggregatorPresence, ClientStatus, Head, Missing, Offer, Reply, UpdateId

__all__ = ["ClientCore"]

_OFFER_AFTER = 2.0  # seconds until an unanswered offer is repeated; doubled each time
_OFFER_LONGEST = 120.0
_RETRAIN_LONGEST = 3600.0
_RECEIPT_WAIT = 2.0  # seconds that a device waits for its receipt before it takes a model
_FAILURE_AFTER = 5.0  # seconds until a failed training is tried again; doubled each time
_FAILURE_LONGEST = 600.0
_ASK_AFTER = 30.0  # seconds until the broker is asked again for what it keeps for everyone; doubled each time
_ASK_LONGEST = 600.0
_DOUBLINGS = 64  # at most: far beyond every longest wait, and 1024 would overflow
_GREETING = 1.0  # all offers within this many seconds of an aggregator's or a broker's return
_UNANSWERED = 8  # offers on their way at a time
_TAKEOVERS = 3  # within a minute; see `own_status`
_MINUTE = 60.0
_MORNING = 600.0  # within so many seconds of a new day everybody goes on: not all at once
_OFFER_BYTES = 1024  # of an offer beside its body, about


@dataclass(slots=True)
class _Pending:
    """An update without a verdict, and when to offer it next."""

    update: UpdateId
    digest: str
    size: int
    next_at: float
    with_body: bool  # with the next offer, if they fit into one message
    delay: float = _OFFER_AFTER
    unanswered: bool = False
    crowded: bool = False  # due, but too many are on their way
    upload: Upload | None = None  # of an update that goes in parts


class ClientCore:
    """One client. Every method that returns actions wants them done, in order.

    Args:
        incarnation: random for each process start.
        randomness: for jitter.
        pending: what the outbox holds from before.
        window: parts on their way at a time, at most.

    Attributes:
        part_bytes: of an update that fit into one message now; its owner keeps this right.
        allowance: what may be sent and received today; its owner keeps this right too.
        paused: what does not suffice, so that nothing is taken or trained before tomorrow; None while all does.

    """

    def __init__(self, incarnation: str, randomness: random.Random, pending: list[Offer], *, window: int = 8) -> None:
        self.training: Head | None = None
        self.part_bytes = 1 << 28
        self.allowance = Allowance()
        self.paused: Shortage | None = None
        self._resume_at = 0.0
        self._update_bytes = max((offer.size for offer in pending), default=0)  # of the next update, about
        self._window = window
        self._incarnation = incarnation
        self._random = randomness
        self._connected = False
        self._aggregator: str | None = None  # its incarnation while it is online
        self._head: Head | None = None  # the newest that was accepted
        self._trained: tuple[str, int] | None = None  # run and version that were trained on last
        self._again = 0  # how often on that version
        self._retrain_at: float | None = None
        self._failures = 0
        self._not_before = 0.0
        self._hold: tuple[int, float] | None = None  # the sequence number whose receipt is waited for, and until when
        self._ask_at = 0.0
        self._ask_delay = _ASK_AFTER
        self._takeovers: list[float] = []
        self._renewing: dict[int, tuple[str, int]] = {}  # digests and sizes of updates that are to have another id
        self._connections = 0
        self._rival_counted = False  # in this connection
        # It may have been sent before: the aggregator asks for the bytes if it does not have them.
        self._pending = {
            offer.update.sequence: _Pending(offer.update, offer.digest, offer.size, 0.0, with_body=False)
            for offer in pending
        }

    @property
    def base_version(self) -> int | None:
        """The version that was trained on last."""
        return self._trained[1] if self._trained else None

    @property
    def newest(self) -> Head | None:
        """The head that any training begins with: the last one that fitted, was not old and was heard between jobs."""
        return self._head

    def connected(self, now: float) -> list[Action]:
        """A connection was made; presence is heard anew."""
        self._connected = True
        self._connections += 1
        self._rival_counted = False
        self._aggregator = None
        self._hold = None
        for pending in self._pending.values():
            if pending.upload is not None:
                pending.upload.cut_off()
        self._ask_delay = _ASK_AFTER
        self._ask_later(now)
        self._greet(now)
        return [] if self.training else self._follow()

    def disconnected(self) -> None:
        """The connection is gone, and every answer that was on its way."""
        self._connected = False

    def presence(self, presence: AggregatorPresence, now: float) -> list[Action]:
        """The aggregator is there, or not."""
        heard = presence.incarnation if presence.state == "online" else None
        if heard is not None and heard != self._aggregator:
            self._greet(now)
        self._aggregator = heard
        return self.tick(now)

    def wants(self, head: Head) -> bool:
        """Whether the weights of this snapshot are worth taking in parts: it is new, and the run goes on."""
        newest = self._head
        return head.state != "finished" and (newest is None or newest.run != head.run or head.version > newest.version)

    def affords(self, head: Head) -> bool:
        """Whether these weights may still be taken today."""
        return self.allowance.suffices(downlink=head.size)

    def head(self, head: Head, fits: bool | None, now: float) -> list[Action]:
        """A snapshot is there.

        Args:
            head: what it says.
            fits: whether its layout is this device's; None if this device does not know the layout yet.
            now: seconds.

        """
        if self.training is not None:
            return []
        if head.state == "finished":
            return [Stop(0, "the run is finished")]
        if not fits:
            return [AskLayout()]
        if self._head is not None and self._head.run == head.run and head.version < self._head.version:
            return []  # an old one, from a broker that forgot
        self._head = head
        if now < self._not_before:
            return []
        if self._trained != (head.run, head.version) or head.plan.continuous:
            return self._start(head)
        return []

    def trained(self, offer: Offer, dropped: list[int], now: float) -> list[Action]:
        """A job is done and its update is in the outbox, which had to drop some others for it."""
        assert self.training is not None
        self._again = self._again + 1 if self._trained == (self.training.run, self.training.version) else 0
        self._trained = (self.training.run, self.training.version)
        self._failures = 0
        self._update_bytes = offer.size
        for sequence in dropped:
            self._pending.pop(sequence, None)
        self._pending[offer.update.sequence] = _Pending(offer.update, offer.digest, offer.size, now, with_body=True)
        wait = min(self.training.plan.retrain_after * 2 ** min(self._again, _DOUBLINGS), _RETRAIN_LONGEST)
        self._retrain_at = now + wait * self._random.uniform(0.75, 1.25)
        self.training = None
        # A model that has this update in it is worth a moment; an aggregator that does not answer is not waited for.
        self._hold = (offer.update.sequence, now + (_RECEIPT_WAIT if self._aggregator is not None else 0.0))
        return self.tick(now)

    def failed(self, now: float) -> list[Action]:
        """A job failed; the next attempt takes the newest snapshot, after a while."""
        wait = min(_FAILURE_AFTER * 2 ** min(self._failures, _DOUBLINGS), _FAILURE_LONGEST)
        self._failures += 1
        self._not_before = self._retrain_at = now + wait * self._random.uniform(0.75, 1.25)
        self.training = None
        return self._follow()

    def reply(self, reply: Reply, now: float) -> list[Action]:
        """What became of offers."""
        actions: list[Action] = []
        for receipt in reply.receipts:
            pending = self._find(receipt.update)
            if pending is None or (receipt.digest is not None and not pending.digest.startswith(receipt.digest)):
                continue  # of other bytes, from before this device's disk was put back
            # At once, so that the same receipt again is nothing: renewed twice, the update would count twice.
            del self._pending[receipt.update.sequence]
            if receipt.reason == "id_reused":
                self._renewing[receipt.update.sequence] = (pending.digest, pending.size)
                actions.append(Renew(receipt.update.sequence))
                continue
            actions.append(Delete(receipt.update.sequence, receipt))
            for waiting in self._pending.values():
                if waiting.crowded:
                    waiting.next_at = now  # there is room on the way
            if receipt.reason == "layout":
                actions.append(AskLayout())
        for later in reply.later:
            pending = self._find(later.update)
            if pending is not None:
                pending.next_at = now + later.seconds * self._random.uniform(1.0, 1.5)
                pending.unanswered = False
        for missing in reply.missing:
            pending = self._find(missing.update)
            if pending is None or not missing.ranges:
                continue
            if pending.size <= self.part_bytes:
                pending.next_at, pending.with_body, pending.unanswered = now, True, False
            else:
                actions += self._upload(missing, pending, now)
        answered = {r.update.sequence for r in reply.receipts} | {later.update.sequence for later in reply.later}
        if self._hold is not None and self._hold[0] in answered:
            self._hold = (self._hold[0], now)
        return [*actions, *self.tick(now)]

    def renewed(self, update: UpdateId, now: float) -> list[Action]:
        """An update has another id now; it was never judged under it."""
        self._pending[update.sequence] = _Pending(update, *self._renewing.pop(update.sequence), now, with_body=True)
        return self.tick(now)

    def own_status(self, status: ClientStatus, now: float) -> list[Action]:
        """Somebody's status on this client's own topic. Another live client with this id shows here.

        Two of them take the connection from each other for ever. Of such a pair the one with the greater incarnation
        stops at the third takeover in a minute; the other only at twice as many, for a peer that never stops.
        """
        # In the first connection it is what an earlier process of this client left.
        if status.incarnation == self._incarnation or self._connections < 2 or self._rival_counted:
            return []
        self._rival_counted = True
        self._takeovers = [at for at in self._takeovers if now - at < _MINUTE] + [now]
        limit = _TAKEOVERS if self._incarnation > status.incarnation else 2 * _TAKEOVERS
        if len(self._takeovers) < limit:
            return []
        why = f"another live client uses the id {status.client_id!r} and takes the connection; give each its own id"
        return [Stop(1, why)]

    def tick(self, now: float) -> list[Action]:
        """Time has passed: what is due."""
        actions = self._heed_the_day(now)
        if self._hold is not None and now >= self._hold[1]:
            self._hold = None
            actions += self._follow()
        due = self._retrain_at is not None and now >= self._retrain_at and now >= self._not_before
        if self.training is None and self._head is not None and due and self._hold is None and self.paused is None:
            actions += self._start(self._head)
        if self._asks() and now >= self._ask_at:
            self._ask_later(now)
            actions += [AskPresence()] if self._aggregator is None else []
            actions += self._follow() if self._head is None and self.training is None else []
        if self._connected and self._aggregator is not None:
            actions += self._offers(now)
        return actions

    def deadline(self) -> float | None:
        """When `tick` is due even if nothing happens."""
        times = [self._retrain_at] if self.training is None and self._head is not None and self.paused is None else []
        if self._hold is not None:
            times = [self._hold[1]]
        if self._connected and self._aggregator is not None:
            times += [pending.next_at for pending in self._pending.values()]
        if self._asks():
            times.append(self._ask_at)
        if self.paused is not None:
            times.append(self._resume_at)
        return min((time for time in times if time is not None), default=None)

    def pause(self, shortage: Shortage) -> list[Action]:
        """Take and train nothing before tomorrow."""
        self.paused, self._resume_at = shortage, self._morning()
        return [Follow(False)]

    def _heed_the_day(self, now: float) -> list[Action]:
        if self.training is not None or (self.paused is not None and now < self._resume_at):
            return []
        shortage = self._shortage()
        if shortage is not None:
            return self.pause(shortage)
        if self.paused is None:
            return []
        self.paused = None
        if self._head is not None:  # the newest comes first
            self._retrain_at = now + self._head.plan.retrain_after * self._random.uniform(0.75, 1.25)
        return self._follow()

    def _shortage(self) -> Shortage | None:
        """What is left does not suffice for this, another model and its update; None if it does."""
        update = self._update_bytes + _OFFER_BYTES
        model = (self._head.size if self._head else 0) + _OFFER_BYTES
        if not self.allowance.suffices(uplink=update):
            return Shortage("uplink", update)
        return None if self.allowance.suffices(downlink=model) else Shortage("downlink", model)

    def _morning(self) -> float:
        return self.allowance.until + _MORNING * self._random.random()

    def _start(self, head: Head) -> list[Action]:
        if not self.allowance.suffices(uplink=self._update_bytes + _OFFER_BYTES):
            return []  # the next tick pauses; a shortage for another model does not matter, this one is here
        self.training = head
        self._retrain_at = self._hold = None
        return [Follow(False), Train(head)]

    def _follow(self) -> list[Action]:
        return [Follow(True)] if self._connected and self.paused is None else []

    def _asks(self) -> bool:
        """Whether something is not here that a broker keeps: it may lose that as well."""
        no_model = self._head is None and self.training is None and self.paused is None
        return self._connected and (self._aggregator is None or no_model)

    def _ask_later(self, now: float) -> None:
        self._ask_at = now + self._ask_delay * self._random.uniform(0.75, 1.25)
        self._ask_delay = min(2 * self._ask_delay, _ASK_LONGEST)

    def _offers(self, now: float) -> list[Action]:
        actions: list[Action] = []
        left = self.allowance.uplink
        on_their_way = [p.next_at for p in self._pending.values() if p.unanswered and p.next_at > now]
        # Those that were offered least often come first, so that eight that nobody answers do not block the rest.
        for sequence, pending in sorted(self._pending.items(), key=lambda item: item[1].delay):
            if pending.next_at > now:
                continue
            if len(on_their_way) >= _UNANSWERED:
                pending.next_at, pending.crowded = min(on_their_way), True  # when the first of them is given up
                continue
            fits = pending.size <= self.part_bytes
            size = _OFFER_BYTES + (pending.size if pending.with_body and fits else 0)
            if left is not None:
                if size > left:
                    pending.next_at = self._morning()
                    continue
                left -= size
            if not fits and pending.upload is None:
                pending.upload = Upload()
            number = pending.upload.offered() if pending.upload is not None and not fits else None
            actions.append(SendOffer(sequence, pending.with_body and fits, number))
            pending.next_at = now + pending.delay * self._random.uniform(0.75, 1.25)
            pending.delay = min(2 * pending.delay, _OFFER_LONGEST)
            pending.with_body, pending.unanswered, pending.crowded = False, True, False
            on_their_way.append(pending.next_at)
        return actions

    def _upload(self, missing: Missing, pending: _Pending, now: float) -> list[Action]:
        upload = pending.upload = pending.upload or Upload()
        # On a slow link the answers come slowly; asking for them more often would only take room from the parts.
        since_last = now - upload.told_at if upload.told_at is not None else 0.0
        pending.delay = min(max(_OFFER_AFTER, 2 * since_last), _OFFER_LONGEST)
        pending.next_at, pending.unanswered = now + pending.delay * self._random.uniform(1.0, 1.5), False
        upload.told(missing, self.part_bytes, now)
        left = self.allowance.uplink
        window = self._window if left is None else min(self._window, left // self.part_bytes)
        if not window:
            pending.next_at = self._morning()
        return [SendPart(missing.update.sequence, piece) for piece in upload.pieces(window)]

    def _greet(self, now: float) -> None:
        """Have everything offered soon, not at once: a whole fleet may have heard the same."""
        for pending in self._pending.values():
            pending.next_at = now + _GREETING * self._random.random()
            pending.delay = _OFFER_AFTER
            pending.unanswered = pending.crowded = False

    def _find(self, update: UpdateId) -> _Pending | None:
        pending = self._pending.get(update.sequence)
        return pending if pending is not None and pending.update == update else None
