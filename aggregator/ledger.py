"""What the aggregator remembers of updates that it has judged, so that a verdict is given once and stays.

Per client the last two outboxes, and of each the verdicts on the last 64 sequence numbers: exact for a device that
slept for a year, bounded for each client, nothing to do with staleness.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedmq.aggregator.window import DIGEST_BYTES, WINDOW, Verdict, Window
from fedmq.schemas.messages import Receipt, UpdateId

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

    def find(self, client_id: str, update: UpdateId, digest: str) -> Receipt | None:
        """The receipt that this update has, or must have because of others; None if it is still to be judged."""
        client = self._clients.get(client_id)
        if client is None:
            return None
        if update.outbox_id in client.retired:
            return _expired(update, "its outbox was followed by two others")
        outbox = client.outbox(update.outbox_id)
        if outbox is None:
            return None
        if update.sequence <= outbox.verdicts.newest - WINDOW:
            return _expired(update, f"{WINDOW} or more later updates were judged since")
        known = outbox.verdicts.get(update.sequence)
        if known is None:
            return None
        if known.digest != _short(digest):
            detail = "this update id was used for other content; a restored disk image needs a new outbox id"
            return Receipt(
                update=update, verdict="rejected", reason="id_reused", detail=detail, digest=digest[: 2 * DIGEST_BYTES]
            )
        return _receipt(update, known)

    def enter(self, client_id: str, digest: str, receipt: Receipt) -> bool:
        """Remember the verdict on an update of this digest, SHA-256 in hex; `find` must have said that it has none.

        Returns:
            Whether it is the first of its outbox.

        """
        client = self._clients.get(client_id)
        if client is None:
            client = self._clients[client_id] = _Client()
        outbox = client.outbox(receipt.update.outbox_id)
        first = outbox is None
        if outbox is None:
            outbox = Outbox(receipt.update.outbox_id)
            client.outboxes.append(outbox)
            for old in client.outboxes[:-_OUTBOXES]:
                client.retired.append(old.outbox_id)
            client.outboxes = client.outboxes[-_OUTBOXES:]
            client.retired = client.retired[-_RETIRED:]
        verdict = Verdict(_short(digest), receipt.reason, receipt.version, receipt.staleness)
        outbox.verdicts.put(receipt.update.sequence, verdict)
        return first

    def retired(self, client_id: str) -> list[str]:
        """Outbox ids of this client whose verdicts are forgotten."""
        return self._clients[client_id].retired

    def outboxes(self, client_id: str) -> list[Outbox]:
        """The outboxes of this client whose verdicts are remembered, the newest last."""
        return self._clients[client_id].outboxes

    def restore(self, client_id: str, outboxes: list[Outbox], retired: list[str]) -> None:
        """Put back what the store kept of a client."""
        self._clients[client_id] = _Client(outboxes, retired)


def _short(digest: str) -> bytes:
    return bytes.fromhex(digest[: 2 * DIGEST_BYTES])


def _receipt(update: UpdateId, known: Verdict) -> Receipt:
    if known.reason is None:
        return Receipt(
            update=update,
            verdict="accepted",
            version=known.version,
            staleness=known.staleness,
            digest=known.digest.hex(),
        )
    detail = "it was refused when it was offered first; the aggregator keeps the reason, not the sentence"
    return Receipt(update=update, verdict="rejected", reason=known.reason, detail=detail, digest=known.digest.hex())


def _expired(update: UpdateId, why: str) -> Receipt:
    detail = f"too old to know whether it counted: {why}"
    return Receipt(update=update, verdict="rejected", reason="expired", detail=detail)
