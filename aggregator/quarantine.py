"""Clients that send what no honest one sends, again and again, and are not listened to for a while.

Whoever makes mistakes of time or of settings is not among them: what is stale, late, of another run, of another task
version or sent twice never counts, and what has no slot or comes too often neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from fedmq.schemas.errors import Reason

__all__ = ["OFFENCES", "Held", "Quarantine", "QuarantineRule"]

OFFENCES: frozenset[Reason] = frozenset(
    ("malformed", "schema", "too_large", "wrong_client", "layout", "not_finite", "norm_bound")
)
"""What counts: content that no device makes whose program and settings are right."""

HALF_LIFE_SECONDS = 600.0
"""In which half of what a client has done is forgotten."""

_FORGOTTEN = 0.5  # offences; whoever has fewer has none
_MOST = 256  # clients that are remembered of each kind; beyond it one goes


@dataclass(frozen=True, slots=True)
class QuarantineRule:
    """When, and for how long.

    Attributes:
        after: offences at once; what was done ten minutes ago counts half.
        seconds: of the run.

    """

    after: int
    seconds: float = 3600.0


class Held(NamedTuple):
    """A client in quarantine: for what it did last, and from when to when in seconds of the run."""

    reason: Reason
    since: float
    until: float


@dataclass(slots=True)
class Quarantine:
    """Who is in it, and who may come to it; a part of the durable state.

    Attributes:
        held: by client.
        suspects: the offences of each client, as of a moment.

    """

    held: dict[str, Held] = field(default_factory=dict)
    suspects: dict[str, tuple[float, float]] = field(default_factory=dict)

    def offence(self, rule: QuarantineRule | None, client_id: str, reason: Reason, now: float, times: int = 1) -> bool:
        """Count what a client did; whether that brought it here."""
        if rule is None or reason not in OFFENCES or client_id in self.held:
            return False
        before, at = self.suspects.pop(client_id, (0.0, now))
        points = before * 0.5 ** (max(0.0, now - at) / HALF_LIFE_SECONDS) + times
        if round(points) < rule.after:
            self.suspects[client_id] = points, now  # the last of all
            if len(self.suspects) > _MOST:
                # Who did least, and of these who came last: of a whole fleet that does wrong in turn, nobody would
                # ever have done enough if the oldest went.
                del self.suspects[min(reversed(self.suspects), key=lambda suspect: self.suspects[suspect][0])]
            return False
        self.held[client_id] = Held(reason, now, now + rule.seconds)
        if len(self.held) > _MOST:
            del self.held[next(iter(self.held))]
        return True

    def over(self, now: float) -> list[str]:
        """Let go whose time is over; who that is. Forget who is no suspect any more."""
        for client_id, (points, at) in list(self.suspects.items()):
            if points * 0.5 ** (max(0.0, now - at) / HALF_LIFE_SECONDS) < _FORGOTTEN:
                del self.suspects[client_id]
        gone = [client_id for client_id, held in self.held.items() if now >= held.until]
        for client_id in gone:
            del self.held[client_id]
        return gone

    def release(self, client_id: str) -> bool:
        """Let a client go, and forget what it did; whether it was here."""
        self.suspects.pop(client_id, None)
        return self.held.pop(client_id, None) is not None
