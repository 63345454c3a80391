"""The updates that have no verdict yet, and when to offer each: until there is a receipt. Pure, like the core.

Every answer is the whole state of its update, so nothing depends on one message. Many devices may hear the same at
once, so when each of them acts on it is drawn at random.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from fedmq.edge_client.actions import Action, Delete, Renew, SendOffer, SendPart
from fedmq.edge_client.budget import OFFER_BYTES, Allowance
from fedmq.edge_client.upload import Upload
from fedmq.schemas.errors import LaterReason
from fedmq.schemas.messages import Missing, Offer, Receipt, Reply, UpdateId
from fedmq.schemas.parts import GRAIN

__all__ = ["Morning", "Offers"]

_OFFER_AFTER = 2.0  # seconds until an unanswered offer is repeated; doubled each time
_OFFER_LONGEST = 120.0
_GREETING = 1.0  # all offers within this many seconds of an aggregator's or a broker's return
_UNANSWERED = 8  # offers on their way at a time
_IN_PARTS = 3  # updates in parts on their way: one is sent while two that were sent before it wait for their receipts
_AHEAD_SECONDS = 2.0  # of the link that the parts on their way may take: what is sent behind them waits as long
_LEAST_PART = 4 * GRAIN
_LONG: tuple[LaterReason, ...] = ("quarantine", "quota")  # of which people are to hear, the worse one first
_MORNING = 600.0  # within so many seconds of a new day everybody goes on: not all at once


class Morning:
    """When to go on if a day's allowance is spent, in the owner's seconds.

    Its clock may stand still while the device sleeps, and the device's may be set: so it is looked at again and again.

    Args:
        allowance: the day's.
        randomness: draws the moment.

    Attributes:
        at: the moment. It comes nearer only.

    """

    def __init__(self, allowance: Allowance, randomness: random.Random) -> None:
        self.at = allowance.until + _MORNING * randomness.random()
        self._day = allowance.day
        self._random = randomness

    def look(self, allowance: Allowance, now: float) -> None:
        """Bring it nearer if the next day is nearer than it seemed, or has begun."""
        self.at = min(self.at, allowance.until + _MORNING)
        if allowance.day != self._day:
            self._day = allowance.day
            self.at = min(self.at, now + _MORNING * self._random.random())


@dataclass(slots=True)
class _Pending:
    """An update without a verdict, and when to offer it next."""

    update: UpdateId
    base: tuple[str, int]  # run and version that it was trained on
    digest: str
    size: int
    next_at: float
    with_body: bool  # with the next offer, if they fit into one message
    delay: float = _OFFER_AFTER
    unanswered: bool = False
    crowded: bool = False  # due, but too many are on their way
    upload: Upload | None = None  # of an update that goes in parts
    missing: int = 0  # bytes, by the last answer
    morning: Morning | None = None  # until which it was put off
    later: LaterReason | None = None  # why it is not taken now, by the last answer

    def in_parts(self, now: float) -> Upload | None:
        """How it goes in parts; None if it does not, was put off, or waits for an answer no longer."""
        asked = self.unanswered or (self.upload is not None and self.upload.told_at is not None)
        return self.upload if asked and self.next_at > now else None

    def put_off(self, morning: Morning) -> None:
        """Offer it on another day."""
        self.morning, self.next_at = morning, morning.at

    def look(self, allowance: Allowance, now: float) -> None:
        """If it was put off, until when it is by now."""
        if self.morning is None or self.next_at != self.morning.at:
            self.morning = None  # something else has said when
            return
        self.morning.look(allowance, now)
        self.next_at = self.morning.at


class Offers:
    """One device's updates without a verdict.

    Args:
        pending: what the outbox holds from before.
        randomness: for jitter.
        window: parts on their way at a time, at most.

    Attributes:
        part_bytes: of an update that fit into one message now; its owner keeps this right.

    """

    def __init__(self, pending: list[Offer], randomness: random.Random, window: int) -> None:
        self.part_bytes = 1 << 28
        self._window = window
        self._random = randomness
        self._rate: float | None = None  # bytes a second that parts go with, by the last answers
        self._renewing: dict[int, _Pending] = {}  # updates that are to have another id
        # It may have been sent before: the aggregator asks for the bytes if it does not have them.
        self._pending = {offer.update.sequence: _pending(offer, 0.0, with_body=False) for offer in pending}

    def add(self, offer: Offer, dropped: list[int], now: float) -> None:
        """A new update is in the outbox, which had to drop some others for it."""
        for sequence in dropped:
            self._pending.pop(sequence, None)
        self._pending[offer.update.sequence] = _pending(offer, now, with_body=True)

    def __len__(self) -> int:
        """How many have no verdict."""
        return len(self._pending)

    def any_of(self, run: str, version: int) -> bool:
        """Whether one that was trained on this version has no verdict."""
        return any(pending.base == (run, version) for pending in self._pending.values())

    @property
    def put_off(self) -> LaterReason | None:
        """Whether this device is in quarantine or has had its quota, as far as it was told; None if neither."""
        reasons = {pending.later for pending in self._pending.values()}
        return next((reason for reason in _LONG if reason in reasons), None)

    def sending(self) -> tuple[int, int, int] | None:
        """The number of the update that goes in parts, how many of its bytes are there, and how many it has.

        None if none does.
        """
        uploads = [(pending.upload, pending) for pending in self._pending.values()]
        told = [(upload.sent, pending) for upload, pending in uploads if upload and upload.told_at is not None]
        if not told:
            return None
        _, pending = min(told, key=lambda each: each[0])  # one that is sent still, rather than one that waits
        return pending.update.sequence, max(0, pending.size - pending.missing), pending.size

    def greet(self, now: float) -> None:
        """Have everything offered soon, in order, and not at once: a whole fleet may have heard the same."""
        moments = sorted(self._random.random() for _ in self._pending)
        for pending, moment in zip(self._pending.values(), moments, strict=True):
            pending.next_at = now + _GREETING * moment
            pending.delay = _OFFER_AFTER
            pending.unanswered = pending.crowded = False
            if pending.upload is not None:
                pending.upload.cut_off()

    def reply(self, reply: Reply, allowance: Allowance, now: float) -> list[Action]:
        """What became of offers."""
        actions: list[Action] = []
        if self._quarantine_is_over(reply):
            self.greet(now)
        for receipt in reply.receipts:
            actions += self._receipt(receipt, now)
        for later in reply.later:
            pending = self._find(later.update)
            if pending is not None:
                pending.next_at = now + later.seconds * self._random.uniform(1.0, 1.5)
                pending.later = later.reason
                pending.unanswered = pending.crowded = False
                if pending.upload is not None:
                    pending.upload.cut_off()
        for missing in reply.missing:
            pending = self._find(missing.update)
            if pending is None or not missing.ranges:
                continue
            pending.crowded, pending.later = False, None
            if pending.size <= self.part_bytes:
                pending.next_at, pending.with_body, pending.unanswered = now, True, False
            else:
                actions += self._upload(missing, pending, allowance, now)
        for waiting in self._pending.values():
            if waiting.crowded:
                waiting.next_at = now  # perhaps there is room on the way now
        return actions

    def renewed(self, update: UpdateId, now: float) -> None:
        """An update has another id now; it was never judged under it."""
        old = self._renewing.pop(update.sequence)
        self._pending[update.sequence] = _Pending(update, old.base, old.digest, old.size, now, with_body=True)

    def due(self, allowance: Allowance, now: float) -> list[Action]:
        """The offers to make now, of what may still be sent today."""
        actions: list[Action] = []
        left = allowance.uplink
        for pending in self._pending.values():
            pending.look(allowance, now)
        on_their_way = [p.next_at for p in self._pending.values() if p.unanswered and p.next_at > now]
        # Those that were offered least often come first, so that eight that nobody answers do not block the rest.
        for sequence, pending in sorted(self._pending.items(), key=lambda item: item[1].delay):
            if pending.next_at > now:
                continue
            if len(on_their_way) >= _UNANSWERED:
                pending.next_at, pending.crowded = min(on_their_way), True  # when the first of them is given up
                continue
            fits = pending.size <= self.part_bytes
            held = None if fits else self._held_until(now)
            if held is not None:
                pending.next_at, pending.crowded = held, True
                continue
            size = OFFER_BYTES + (pending.size if pending.with_body and fits else 0)
            if left is not None:
                if size > left:
                    pending.put_off(Morning(allowance, self._random))
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

    def deadline(self) -> float | None:
        """When the next is due."""
        return min((pending.next_at for pending in self._pending.values()), default=None)

    def _quarantine_is_over(self, reply: Reply) -> bool:
        """Whether an update that waits because of it has another answer now; then none waits because of it."""
        answered = [later.update for later in reply.later if later.reason != "quarantine"]
        answered += [receipt.update for receipt in reply.receipts]
        answered += [missing.update for missing in reply.missing]
        found = [self._find(update) for update in answered]
        if not any(pending is not None and pending.later == "quarantine" for pending in found):
            return False
        for pending in self._pending.values():
            pending.later = None if pending.later == "quarantine" else pending.later
        return True

    def _held_until(self, now: float) -> float | None:
        """When another update in parts may be offered if nothing is heard until then; None if it may be at once.

        Its offer goes behind the last part of the one before, so that what that one waits for keeps no link idle.
        """
        uploads = [(pending.in_parts(now), pending.next_at) for pending in self._pending.values()]
        on_their_way = [(upload.sent, next_at) for upload, next_at in uploads if upload is not None]
        if len(on_their_way) < _IN_PARTS and all(sent for sent, _ in on_their_way):
            return None
        return min(next_at for _, next_at in on_their_way)

    def _receipt(self, receipt: Receipt, now: float) -> list[Action]:
        pending = self._find(receipt.update)
        if pending is None or (receipt.digest is not None and not pending.digest.startswith(receipt.digest)):
            return []  # of other bytes, from before this device's disk was put back
        # At once, so that the same receipt again is nothing: renewed twice, the update would count twice.
        del self._pending[receipt.update.sequence]
        if receipt.reason == "id_reused":
            self._renewing[receipt.update.sequence] = pending
            return [Renew(receipt.update.sequence)]
        return [Delete(receipt.update.sequence, receipt)]

    def _upload(self, missing: Missing, pending: _Pending, allowance: Allowance, now: float) -> list[Action]:
        upload = pending.upload = pending.upload or Upload()
        # On a slow link the answers come slowly; asking for them more often would only take room from the parts.
        since_last = now - upload.told_at if upload.told_at is not None else 0.0
        pending.delay = min(max(_OFFER_AFTER, 2 * since_last), _OFFER_LONGEST)
        pending.next_at, pending.unanswered = now + pending.delay * self._random.uniform(1.0, 1.5), False
        self._measure(missing, pending, since_last)
        part_bytes, window = self._pace()
        upload.told(missing, part_bytes, now)
        left = allowance.uplink
        window = window if left is None else min(window, left // part_bytes)
        if not window:
            pending.put_off(Morning(allowance, self._random))
        sequence = missing.update.sequence
        actions: list[Action] = [SendPart(sequence, piece) for piece in upload.pieces(window)]
        if actions and window < max(1, missing.window // 2):  # so few parts are not answered unasked
            actions.append(SendOffer(sequence, False, upload.offered()))
        return actions

    def _measure(self, missing: Missing, pending: _Pending, seconds: float) -> None:
        before, pending.missing = pending.missing, sum(end - start for start, end in missing.ranges)
        came = before - pending.missing
        if came > 0 and seconds > 0:
            self._rate = came / seconds

    def _pace(self) -> tuple[int, int]:
        """How large parts are to be, and how many may be on their way: a slow link carries more than this update."""
        if self._rate is None:
            return self.part_bytes, min(2, self._window)
        size = max(_LEAST_PART, int(self._rate * _AHEAD_SECONDS / 2) // GRAIN * GRAIN)
        size = min(size, self.part_bytes)
        return size, max(1, min(self._window, max(2, int(self._rate * _AHEAD_SECONDS / size))))

    def _find(self, update: UpdateId) -> _Pending | None:
        pending = self._pending.get(update.sequence)
        return pending if pending is not None and pending.update == update else None


def _pending(offer: Offer, at: float, *, with_body: bool) -> _Pending:
    return _Pending(offer.update, (offer.run, offer.base_version), offer.digest, offer.size, at, with_body)
