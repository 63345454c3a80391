"""What the aggregator remembers of updates that it has judged, so that a verdict is given once and stays.

Per client the last two outboxes, and of each the verdicts on the last 64 sequence numbers: exact for a device that
slept for a year, bounded for each client, nothing to do with staleness.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedmq.schemas.messages import Receipt, UpdateId

__all__ = ["WINDOW", "Ledger", "Outbox"]

WINDOW = 64
"""Sequence numbers of an outbox that are remembered; an outbox holds fewer than this many updates."""

_OUTBOXES = 2
_RETIRED = (
    64  # ids of older outboxes: one for every disk image put back, and for every start of a device without a disk
)
_DETAIL = 120  # characters of a verdict's sentence that are remembered


@dataclass(slots=True)
class Outbox:
    """The verdicts on one outbox's updates: sequence -> (digest of the update, receipt)."""

    outbox_id: str
    newest: int = -1
    verdicts: dict[int, tuple[str, Receipt]] = field(default_factory=dict)


@dataclass(slots=True)
class _Client:
    outboxes: list[Outbox] = field(default_factory=list)  # at most two, the newest last
    retired: list[str] = field(default_factory=list)  # ids of older ones


class Ledger:
    """Verdicts by client and update id."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}

    def __len__(self) -> int:
        """How many clients it knows."""
        return len(self._clients)

    def clients(self) -> list[str]:
        """The ids of the clients that it knows."""
        return list(self._clients)

    def find(self, client_id: str, update: UpdateId, digest: str) -> Receipt | None:
        """The receipt that this update has, or must have because of others; None if it is still to be judged."""
        client = self._clients.get(client_id)
        if client is None:
            return None
        if update.outbox_id in client.retired:
            return _expired(update, "its outbox was followed by two others")
        outbox = next((o for o in client.outboxes if o.outbox_id == update.outbox_id), None)
        if outbox is None:
            return None
        if update.sequence <= outbox.newest - WINDOW:
            return _expired(update, f"{WINDOW} or more later updates were judged since")
        known = outbox.verdicts.get(update.sequence)
        if known is None:
            return None
        if known[0] != digest:
            detail = "this update id was used for other content; a restored disk image needs a new outbox id"
            return Receipt(update=update, verdict="rejected", reason="id_reused", detail=detail)
        return known[1]

    def enter(self, client_id: str, digest: str, receipt: Receipt) -> Outbox:
        """Remember a verdict. `find` must have said that there is none. The outbox's record, for the store."""
        client = self._clients.setdefault(client_id, _Client())
        outbox = next((o for o in client.outboxes if o.outbox_id == receipt.update.outbox_id), None)
        if outbox is None:
            outbox = Outbox(receipt.update.outbox_id)
            client.outboxes.append(outbox)
            for old in client.outboxes[:-_OUTBOXES]:
                client.retired.append(old.outbox_id)
            client.outboxes = client.outboxes[-_OUTBOXES:]
            client.retired = client.retired[-_RETIRED:]
        short = receipt.model_copy(update={"detail": receipt.detail[:_DETAIL]})
        outbox.verdicts[receipt.update.sequence] = (digest, short)
        outbox.newest = max(outbox.newest, receipt.update.sequence)
        for sequence in [s for s in outbox.verdicts if s <= outbox.newest - WINDOW]:
            del outbox.verdicts[sequence]
        return outbox

    def retired(self, client_id: str) -> list[str]:
        """Outbox ids of this client whose verdicts are forgotten."""
        return self._clients[client_id].retired

    def outboxes(self, client_id: str) -> list[Outbox]:
        """The outboxes of this client whose verdicts are remembered, the newest last."""
        return self._clients[client_id].outboxes

    def restore(self, client_id: str, outboxes: list[Outbox], retired: list[str]) -> None:
        """Put back what the store kept of a client."""
        self._clients[client_id] = _Client(outboxes, retired)


def _expired(update: UpdateId, why: str) -> Receipt:
    detail = f"too old to know whether it counted: {why}"
    return Receipt(update=update, verdict="rejected", reason="expired", detail=detail)
