"""What the aggregator remembers of updates that it has judged, so that a verdict is given once and stays.

Per client the last two outboxes, and of each the verdicts on the last 64 sequence numbers: exact for a device that
slept for a year, bounded for each client, nothing to do with staleness.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedmq.aggregator.judged import Judged, short
from fedmq.aggregator.window import WINDOW, Verdict, Window
from fedmq.schemas.messages import UpdateId

__all__ = ["Ledger", "Outbox"]

_OUTBOXES = 2
_RETIRED = (
    64  # ids of older outboxes: one for every disk image put back, and for every start of a device without a disk
)


@dataclass(slots=True)
class Outbox:
    """The verdicts on one outbox's updates, by sequence number."""

    outbox_id: str
    verdicts: Window = field(default_factory=Window)


@dataclass(slots=True)
class _Client:
    outboxes: list[Outbox] = field(default_factory=list)  # at most two, the newest last
    retired: list[str] = field(default_factory=list)  # ids of older ones

    def outbox(self, outbox_id: str) -> Outbox | None:
        for outbox in self.outboxes:
            if outbox.outbox_id == outbox_id:
                return outbox
        return None


class Ledger:
    """Verdicts by client and update id.

    A client takes about 2 kB of memory, and 1.5 more once it has drawn a new outbox id.
    """

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}

    def __len__(self) -> int:
        """How many clients it knows."""
        return len(self._clients)

    def clients(self) -> list[str]:
        """The ids of the clients that it knows."""
        return list(self._clients)

    def find(self, client_id: str, update: UpdateId, digest: str) -> Judged | None:
        """The verdict that this update has, or must have because of others; None if it is still to be judged."""
        client = self._clients.get(client_id)
        if client is None:
            return None
        outbox_id, sequence = update.outbox_id, update.sequence
        if outbox_id in client.retired:
            return _expired(update, "its outbox was followed by two others")
        outbox = client.outbox(outbox_id)
        if outbox is None:
            return None
        verdicts = outbox.verdicts
        if sequence > verdicts.newest:  # as of most
            return None
        if sequence <= verdicts.newest - WINDOW:
            return _expired(update, f"{WINDOW} or more later updates were judged since")
        known = verdicts.get(sequence)
        if known is None:
            return None
        if known.digest != bytes.fromhex(short(digest)):
            detail = "this update id was used for other content; a restored disk image needs a new outbox id"
            return Judged(update, "id_reused", detail, digest=short(digest))
        return _again(update, known)

    def enter(self, client_id: str, judged: Judged) -> tuple[bytes, bool]:
        """Remember the verdict on an update; `find` must have said that it has none.

        Returns:
            As what the window keeps it, and whether it is the first of its outbox.

        """
        update, reason, _, version, staleness, digest = judged
        assert digest is not None
        client = self._clients.get(client_id)
        if client is None:
            client = self._clients[client_id] = _Client()
        outbox = client.outbox(update.outbox_id)
        first = outbox is None
        if outbox is None:
            outbox = Outbox(update.outbox_id)
            client.outboxes.append(outbox)
            for old in client.outboxes[:-_OUTBOXES]:
                client.retired.append(old.outbox_id)
            client.outboxes = client.outboxes[-_OUTBOXES:]
            client.retired = client.retired[-_RETIRED:]
        return outbox.verdicts.put(update.sequence, bytes.fromhex(digest), reason, version, staleness), first

    def retired(self, client_id: str) -> list[str]:
        """Outbox ids of this client whose verdicts are forgotten."""
        return self._clients[client_id].retired

    def outboxes(self, client_id: str) -> list[Outbox]:
        """The outboxes of this client whose verdicts are remembered, the newest last."""
        return self._clients[client_id].outboxes

    def outbox(self, client_id: str, outbox_id: str) -> Outbox | None:
        """The one of this id, if its verdicts are remembered."""
        return self._clients[client_id].outbox(outbox_id)

    def restore(self, client_id: str, outboxes: list[Outbox], retired: list[str]) -> None:
        """Put back what the store kept of a client."""
        self._clients[client_id] = _Client(outboxes, retired)


def _again(update: UpdateId, known: Verdict) -> Judged:
    if known.reason is None:
        return Judged(update, None, "", known.version, known.staleness, known.digest.hex())
    detail = "it was refused when it was offered first; the aggregator keeps the reason, not the sentence"
    return Judged(update, known.reason, detail, digest=known.digest.hex())


def _expired(update: UpdateId, why: str) -> Judged:
    return Judged(update, "expired", f"too old to know whether it counted: {why}")
