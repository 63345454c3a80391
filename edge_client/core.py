"""The device's decisions: what it hears in, what to do out. No clock, thread, socket, disk or log; randomness comes in.

While it trains it is not subscribed to the model. When its update is in it subscribes, and the newest is there at once.
Every update is offered until it has a receipt; every answer is the whole state, so nothing depends on one message.
"""

from __future__ import annotations

import random

from fedmq.edge_client.actions import (
    Action,
    AskLayout,
    AskPresence,
    AskProgress,
    Delete,
    Follow,
    Stop,
    Train,
)
from fedmq.edge_client.budget import OFFER_BYTES, Allowance, Shortage, body_bytes
from fedmq.edge_client.offers import Morning, Offers
from fedmq.edge_client.turned_away import REVOKED
from fedmq.schemas.messages import AggregatorPresence, ClientStatus, Head, Offer, Progress, Reply, UpdateId
from fedmq.schemas.plan import Plan

__all__ = ["ClientCore"]

_RETRAIN_LONGEST = 3600.0
_RECEIPT_WAIT = 2.0  # seconds that a device waits for its receipt before it takes a model
_NO_RECEIPT = -1  # in place of a sequence number
_AHEAD = 1  # updates without a verdict beside which another model is taken: one goes out while one is made
_FAILURE_AFTER = 5.0  # seconds until a failed training is tried again; doubled each time
_FAILURE_LONGEST = 600.0
_ASK_AFTER = 30.0  # seconds until the broker is asked again for what it keeps for everyone; doubled each time
_ASK_LONGEST = 600.0
_DOUBLINGS = 64  # at most: far beyond every longest wait, and 1024 would overflow
_TAKEOVERS = 3  # within a minute; see `own_status`
_MINUTE = 60.0
_TURNED_AWAY = 600.0  # seconds of a login that is not taken after which nothing more is trained, until so long after


class ClientCore:
    """One client. Every method that returns actions wants them done, in order.

    Args:
        incarnation: random for each process start.
        randomness: for jitter.
        pending: what the outbox holds from before.
        window: parts on their way at a time, at most.

    Attributes:
        offers: the updates that have no verdict yet.
        allowance: what may be sent and received today; its owner keeps this right.
        paused: what does not suffice, so that nothing is taken or trained before tomorrow; None while all does.

    """

    def __init__(self, incarnation: str, randomness: random.Random, pending: list[Offer], *, window: int = 8) -> None:
        self.training: Head | None = None
        self.offers = Offers(pending, randomness, window)
        self.allowance = Allowance()
        self.paused: Shortage | None = None
        self._morning = Morning(self.allowance, randomness)  # while it is paused
        self._update_bytes = max((offer.size for offer in pending), default=0)  # of the next update, about
        self._incarnation = incarnation
        self._random = randomness
        self._connected = False
        self._aggregator: str | None = None  # its incarnation while it is online
        self._takes = False  # it says nothing of a trouble in which it would take no update
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
        self._connections = 0
        self._turned_away: tuple[float, float] | None = None  # when the broker did not take the login, first and last
        self._rival_counted = False  # in this connection

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
        if self._training_at() != self._retrain_at and self._head is not None:
            self._retrain_later(self._head.plan, now)  # the newest comes first
        self._turned_away = None
        self._rival_counted = False
        self._aggregator = None
        self._hold = None
        self._ask_delay = _ASK_AFTER
        self._ask_later(now)
        self.offers.greet(now)
        return [] if self.training else self._follow()

    def disconnected(self) -> None:
        """The connection is gone, and every answer that was on its way."""
        self._connected = False

    def turned_away(self, now: float) -> None:
        """The broker does not take the login. It may change its mind soon; else nobody will have what is trained.

        It says so at every attempt. A network that is lost after that says nothing about the login.
        """
        first, _ = self._turned_away or (now, now)
        self._turned_away = first, now

    def presence(self, presence: AggregatorPresence, now: float) -> list[Action]:
        """The aggregator is there, or not."""
        heard = presence.incarnation if presence.state == "online" else None
        if heard is not None and heard != self._aggregator:
            self.offers.greet(now)
        self._aggregator = heard
        self._takes = heard is not None and not presence.detail
        return [*self._ask_progress(), *self.tick(now)]

    def progress(self, progress: Progress) -> list[Action]:
        """The progress was heard, by a device that takes no model today, and would not hear that there is no other."""
        newest = self._head
        if progress.state != "finished" or (newest is not None and newest.run != progress.run):
            return []
        return [Stop(0, "the run is finished")]

    def wants(self, head: Head) -> bool:
        """Whether the weights of this snapshot are worth taking in parts: it is new, and the run goes on."""
        newest = self._head
        return head.state != "finished" and (newest is None or newest.run != head.run or head.version > newest.version)

    def foresee(self, size: int) -> None:
        """The next update takes so many bytes, whatever is in it."""
        self._update_bytes = size

    def lacks(self, head: Head) -> Shortage | None:
        """What of today's bytes does not suffice for these weights, whose head is here, and an update; else None."""
        update = self._update_needs()
        if not self.allowance.suffices(uplink=update):
            return Shortage("uplink", update)
        needed = body_bytes(head.size, head.part_bytes)
        return None if self.allowance.suffices(downlink=needed) else Shortage("downlink", needed)

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
        self.offers.add(offer, dropped, now)
        self._retrain_later(self.training.plan, now)
        self.training = None
        # A model that has this update in it is worth a moment; an aggregator that does not answer is not waited for.
        self._hold = (offer.update.sequence, now + (_RECEIPT_WAIT if self._aggregator is not None else 0.0))
        return self.tick(now)

    def failed(self, now: float) -> list[Action]:
        """A job failed; the next attempt takes the newest snapshot, after a while. None is taken before that."""
        wait = min(_FAILURE_AFTER * 2 ** min(self._failures, _DOUBLINGS), _FAILURE_LONGEST)
        self._failures += 1
        self._not_before = now + wait * self._random.uniform(0.75, 1.25)
        self._hold = (_NO_RECEIPT, self._not_before)
        self._retrain_at = self._not_before + _RECEIPT_WAIT  # on the one at hand, if none comes until then
        self.training = None
        return self.tick(now)

    def reply(self, reply: Reply, now: float) -> list[Action]:
        """What became of offers."""
        actions: list[Action] = []
        for action in self.offers.reply(reply, self.allowance, now):
            actions.append(action)
            if isinstance(action, Delete) and action.receipt.reason == "layout":
                actions.append(AskLayout())
            if isinstance(action, Delete) and action.receipt.reason == "revoked":
                return [*actions, Stop(2, REVOKED)]
        answered = {r.update.sequence for r in reply.receipts} | {later.update.sequence for later in reply.later}
        if self._hold is not None and self._hold[0] in answered:
            self._hold = (self._hold[0], now)
        return [*actions, *self.tick(now)]

    def renewed(self, update: UpdateId, now: float) -> list[Action]:
        """An update has another id now; it was never judged under it."""
        self.offers.renewed(update, now)
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
        if self._hold is not None and now >= self._hold[1] and not self._crowded():
            self._hold = None
            actions += self._follow()
        training_at = self._training_at()
        due = training_at is not None and now >= max(training_at, self._not_before)
        if self.training is None and self._head is not None and due and self._hold is None and self.paused is None:
            if self._in_vain(self._head):
                self._retrain_later(self._head.plan, now)
            else:
                actions += self._start(self._head)
        if self._asks() and now >= self._ask_at:
            self._ask_later(now)
            actions += [AskPresence()] if self._aggregator is None else []
            actions += self._follow() if self._head is None and self.training is None else []
        if self.reached:
            actions += self.offers.due(self.allowance, now)
        return actions

    def deadline(self) -> float | None:
        """When `tick` is due even if nothing happens."""
        times = (
            [self._training_at()] if self.training is None and self._head is not None and self.paused is None else []
        )
        if self._hold is not None:
            times = [] if self._crowded() else [self._hold[1]]
        if self.reached:
            times.append(self.offers.deadline())
        if self._asks():
            times.append(self._ask_at)
        if self.paused is not None:
            times.append(self._morning.at)
        return min((time for time in times if time is not None), default=None)

    def pause(self, shortage: Shortage) -> list[Action]:
        """Take and train nothing before tomorrow."""
        self.paused, self._morning = shortage, Morning(self.allowance, self._random)
        return [Follow(False), *self._ask_progress()]

    def _ask_progress(self) -> list[Action]:
        # An aggregator goes when its run is finished, or for another reason.
        asks = self.paused is not None and self._connected and self._aggregator is None
        return [AskProgress()] if asks else []

    def _heed_the_day(self, now: float) -> list[Action]:
        if self.training is not None:
            return []
        if self.paused is not None:
            self._morning.look(self.allowance, now)
            if now < self._morning.at:
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
        update = self._update_needs()
        model = (body_bytes(self._head.size, self._head.part_bytes) if self._head else 0) + OFFER_BYTES
        if not self.allowance.suffices(uplink=update):
            return Shortage("uplink", update)
        return None if self.allowance.suffices(downlink=model) else Shortage("downlink", model)

    def _update_needs(self) -> int:
        return body_bytes(self._update_bytes, self.offers.part_bytes) + OFFER_BYTES

    @property
    def reached(self) -> bool:
        """Whether the aggregator is online, as far as it was heard."""
        return self._connected and self._aggregator is not None

    def _taken(self) -> bool:
        """Whether somebody is there who takes updates: else a device goes on as if it were alone, and keeps them."""
        return self.reached and self._takes

    def _crowded(self) -> bool:
        """Whether so many updates are on their way that what came of another model would be old when it counts."""
        continuous = self._head is not None and self._head.plan.continuous
        return self._taken() and not continuous and len(self.offers) > _AHEAD

    def _in_vain(self, head: Head) -> bool:
        """Whether what was learned from this version is still on its way: more of the same would stand behind it."""
        known = self._trained == (head.run, head.version) and not head.plan.continuous
        return known and self._taken() and self.offers.any_of(head.run, head.version)

    def _retrain_later(self, plan: Plan, now: float) -> None:
        wait = min(plan.retrain_after * 2 ** min(self._again, _DOUBLINGS), _RETRAIN_LONGEST)
        self._retrain_at = now + wait * self._random.uniform(0.75, 1.25)

    def _training_at(self) -> float | None:
        """When to train again on the version at hand; None if it is not known."""
        at = self._retrain_at
        if at is None or self._turned_away is None:
            return at
        first, last = self._turned_away
        return at if at < first + _TURNED_AWAY else max(at, last + _TURNED_AWAY)

    def _start(self, head: Head) -> list[Action]:
        if not self.allowance.suffices(uplink=self._update_needs()):
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
