"""What the aggregator remembers of updates that it has judged, so that a verdict is given once and stays.

Per client the last two outboxes, and of each the verdicts on the last 64 sequence numbers; of 64 before them, which
numbers had one. So it is exact for a device that slept for a year, bounded for each client, nothing to do with
staleness, and an outbox that is at work comes to no harm when old offers of others are repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from fedmq.aggregator.judged import Judged, short
from fedmq.aggregator.window import WINDOW, Verdict, Window
from fedmq.schemas.messages import UpdateId

__all__ = ["Ledger", "Outbox", "Past"]

_OUTBOXES = 2
_RETIRED = 64  # older ones: one for every disk image put back, and for every start of a device without a disk


class Past(NamedTuple):
    """Of an outbox's verdicts that are forgotten, which updates had one; of a new outbox, none.

    Attributes:
        floor: the outbox may have been another one, of which nothing is remembered: what was trained from no newer
            version than this one may have counted; -1 if there is no such outbox.
        newest: the highest sequence number that had a verdict.
        had: bit n: whether `newest` - n had one. All numbers below these count as judged.
        base: the newest version that an accepted update of it was trained from; -1 without any.

    """

    floor: int = -1
    newest: int = -1
    had: int = 0
    base: int = -1

    def judged(self, sequence: int) -> bool:
        """Whether this number had a verdict, or may have had one."""
        age = self.newest - sequence
        return age >= 0 and (age >= WINDOW or bool(self.had >> age & 1))


@dataclass(slots=True)
class Outbox:
    """The verdicts on one outbox's updates, by sequence number.

    Attributes:
        past: what was judged of it before two others followed it, and it came back.

    """

    outbox_id: str
    past: Past
    verdicts: Window = field(default_factory=Window)

    def retired(self) -> Past:
        """What stays of it when two others have followed."""
        window, past = self.verdicts, self.past
        newest, had, base = max(window.newest, past.newest), 0, past.base
        for age in range(WINDOW):
            sequence = newest - age
            verdict = window.get(sequence)
            if verdict is not None and verdict.version is not None and verdict.staleness is not None:
                base = max(base, verdict.version - verdict.staleness)
            if verdict is not None or past.judged(sequence):
                had |= 1 << age
        return Past(past.floor, newest, had, base)


@dataclass(slots=True)
class _Client:
    outboxes: list[Outbox] = field(default_factory=list)  # at most two, the newest last
    retired: dict[str, Past] = field(default_factory=dict)  # older ones by their ids, the oldest first
    forgotten: int = -1  # the newest version that an accepted update of any before those was trained from

    def outbox(self, outbox_id: str) -> Outbox | None:
        for outbox in self.outboxes:
            if outbox.outbox_id == outbox_id:
                return outbox
        return None

    def past(self, outbox_id: str) -> Past:
        """Of an outbox that is not at work."""
        return self.retired.get(outbox_id) or Past(floor=self.forgotten)

    def begin(self, outbox_id: str) -> Outbox:
        """An outbox that is new, or comes back; the oldest of those at work gives place to it."""
        outbox = Outbox(outbox_id, self.past(outbox_id))
        self.retired.pop(outbox_id, None)
        self.outboxes.append(outbox)
        while len(self.outboxes) > _OUTBOXES:
            old = self.outboxes.pop(0)
            self.retired[old.outbox_id] = old.retired()
        while len(self.retired) > _RETIRED:
            self.forgotten = max(self.forgotten, self.retired.pop(next(iter(self.retired))).base)
        return outbox


class Ledger:
    """Verdicts by client and update id.

    A client takes about 2 kB of memory, 1.5 more once it has drawn a new outbox id, and 10 in all after 66 of them.
    """

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}

    def __len__(self) -> int:
        """How many clients it knows."""
        return len(self._clients)

    def clients(self) -> list[str]:
        """The ids of the clients that it knows."""
        return list(self._clients)

    def find(self, client_id: str, update: UpdateId, digest: str, base_version: int) -> Judged | None:
        """The verdict that this update has, or must have because of others; None if it is still to be judged."""
        client = self._clients.get(client_id)
        if client is None:
            return None
        outbox_id, sequence = update.outbox_id, update.sequence
        outbox = client.outbox(outbox_id)
        past = client.past(outbox_id) if outbox is None else outbox.past
        if past.judged(sequence):
            return _expired(update, "its outbox was followed by two others since it was judged")
        if outbox is not None and sequence <= outbox.verdicts.newest - WINDOW:
            return _expired(update, f"{WINDOW} or more later updates were judged since")
        known = None if outbox is None else outbox.verdicts.get(sequence)
        if known is None and base_version <= past.floor:
            return _expired(update, f"{_OUTBOXES + _RETIRED} outboxes or more of its client may have followed its own")
        if known is None:
            return None
        if known.digest != bytes.fromhex(short(digest)):
            detail = "this update id was used for other content; a restored disk image needs a new outbox id"
            return Judged(update, "id_reused", detail, digest=short(digest))
        return _again(update, known)

    def enter(self, client_id: str, judged: Judged) -> tuple[bytes, bool]:
        """Remember the verdict on an update; `find` must have said that it has none.

        Returns:
            As what the window keeps it, and whether its outbox is another than those before it.

        """
        update, reason, _, version, staleness, digest = judged
        assert digest is not None
        client = self._clients.get(client_id)
        if client is None:
            client = self._clients[client_id] = _Client()
        outbox = client.outbox(update.outbox_id)
        begins = outbox is None
        if outbox is None:
            outbox = client.begin(update.outbox_id)
        return outbox.verdicts.put(update.sequence, bytes.fromhex(digest), reason, version, staleness), begins

    def retired(self, client_id: str) -> dict[str, Past]:
        """What stays of this client's outboxes whose verdicts are forgotten, by their ids, the oldest first."""
        return self._clients[client_id].retired

    def forgotten(self, client_id: str) -> int:
        """What updates of this client were trained from is newer, or they may be of an outbox that is forgotten."""
        return self._clients[client_id].forgotten

    def outboxes(self, client_id: str) -> list[Outbox]:
        """The outboxes of this client whose verdicts are remembered, the newest last."""
        return self._clients[client_id].outboxes

    def outbox(self, client_id: str, outbox_id: str) -> Outbox | None:
        """The one of this id, if its verdicts are remembered."""
        return self._clients[client_id].outbox(outbox_id)

    def restore(self, client_id: str, outboxes: list[Outbox], retired: dict[str, Past], forgotten: int) -> None:
        """Put back what the store kept of a client."""
        self._clients[client_id] = _Client(outboxes, retired, forgotten)


def _again(update: UpdateId, known: Verdict) -> Judged:
    if known.reason is None:
        return Judged(update, None, "", known.version, known.staleness, known.digest.hex())
    detail = "it was refused when it was offered first; the aggregator keeps the reason, not the sentence"
    return Judged(update, known.reason, detail, digest=known.digest.hex())


def _expired(update: UpdateId, why: str) -> Judged:
    return Judged(update, "expired", f"too old to know whether it counted: {why}")
