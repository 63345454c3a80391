"""What a device's core wants done."""

from __future__ import annotations

from dataclasses import dataclass

from fedmq.edge_client.upload import Piece
from fedmq.schemas.messages import Head, Receipt

__all__ = [
    "Action",
    "AskLayout",
    "AskPresence",
    "AskProgress",
    "Delete",
    "Follow",
    "Renew",
    "SendOffer",
    "SendPart",
    "Stop",
    "Train",
]


@dataclass(frozen=True, slots=True)
class Follow:
    """Subscribe to the model, or stop."""

    on: bool


@dataclass(frozen=True, slots=True)
class AskLayout:
    """Subscribe to the layout: to learn it, or to name the first difference."""


@dataclass(frozen=True, slots=True)
class AskPresence:
    """Subscribe to the aggregator's presence again: what the broker sent may have been lost."""


@dataclass(frozen=True, slots=True)
class AskProgress:
    """Subscribe to the progress until it has come once: it says in few bytes whether the run is finished."""


@dataclass(frozen=True, slots=True)
class Train:
    """Start a job on this snapshot."""

    head: Head


@dataclass(frozen=True, slots=True)
class SendOffer:
    """Offer the update with this sequence number, with its bytes or without; numbered if it goes in parts."""

    sequence: int
    with_body: bool
    number: int | None = None


@dataclass(frozen=True, slots=True)
class SendPart:
    """Send these bytes of the update with this sequence number."""

    sequence: int
    piece: Piece


@dataclass(frozen=True, slots=True)
class Delete:
    """The update has its verdict."""

    sequence: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Renew:
    """The update's id was used elsewhere: it needs another outbox id. Answered by `ClientCore.renewed`."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The client ends: 0 when the run is finished."""

    code: int
    why: str


Action = Follow | AskLayout | AskPresence | AskProgress | Train | SendOffer | SendPart | Delete | Renew | Stop
