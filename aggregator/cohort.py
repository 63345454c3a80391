"""Who a synchronous strategy waits for. The one place where presence decides anything."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from fedmq.aggregator.strategies.strategy import Cohort
from fedmq.schemas.plan import Plan

__all__ = ["CohortState", "plan_of_a_cohort"]

_NEVER = 86_400.0  # seconds: the longest `retrain_after` that a plan takes

# Without a deadline of its own a cohort waits so many times as long as half of it took, but at least a minute, in which
# a connection is there again; and while half of it is not in, so many times as long as the first, but at least an hour.
_PATIENCE = 10.0
_LEAST_SECONDS, _LEAST_FOR_HALF_SECONDS = 60.0, 3600.0


def plan_of_a_cohort(plan: Plan) -> Plan:
    """The plan for a cohort, which takes one update of each device: to train again would be work for nothing."""
    return plan.model_copy(update={"retrain_after": _NEVER, "continuous": False})


@dataclass(slots=True)
class CohortState:
    """The cohort of the present version.

    Attributes:
        online: clients whose presence says so.
        members: who is waited for; None until enough clients are online.
        frozen_at: when that was, on the core's clock.
        refused: those of them whose update was refused: they train again on this version after about an hour.
        first_at, half_at: when the first update came since then, and when half of those waited for were in.
        silent: clients that let a deadline pass; nobody waits for them until something of them comes.

    """

    online: set[str] = field(default_factory=set)
    members: frozenset[str] | None = None
    frozen_at: float | None = None
    refused: set[str] = field(default_factory=set)
    first_at: float | None = None
    half_at: float | None = None
    silent: set[str] = field(default_factory=set)

    def open(self) -> None:
        """A version was made: its cohort is still to be frozen."""
        self.members = self.frozen_at = self.first_at = self.half_at = None
        self.refused.clear()

    def presence(self, client_id: str, online: bool) -> None:
        """A client came or went."""
        (self.online.add if online else self.online.discard)(client_id)

    def heard(self, client_id: str) -> None:
        """An update of this client came, in time or too late: it is at work."""
        self.silent.discard(client_id)

    def delivery(self, delivered: AbstractSet[str], now: float) -> None:
        """One more update is in."""
        if self.members is None:
            return
        if self.first_at is None:
            self.first_at = now
        if self.half_at is None and 2 * len(delivered) >= len(self.waited_for(delivered)):
            self.half_at = now

    def missed(self, delivered: AbstractSet[str]) -> None:
        """The deadline has passed: whose updates are missing is not waited for any more."""
        self.silent |= (self.members or frozenset()) - delivered - self.refused

    def refuse(self, client_id: str) -> None:
        """An update of the present version was refused: whose it was is not waited for."""
        if self.members is not None and client_id in self.members:
            self.refused.add(client_id)

    def freeze(self, rule: Cohort, delivered: AbstractSet[str], now: float) -> None:
        """Freeze the cohort if enough clients are here; who delivered already is in it, online or not."""
        present = self.online | delivered
        if self.members is None and len(present) >= rule.clients:
            self.members, self.frozen_at = frozenset(present), now

    def refusal(self, client_id: str, delivered: AbstractSet[str]) -> str | None:
        """Why an update of the present version does not belong here; None if it does."""
        if client_id in delivered:
            return "this client's update for this version is in already"
        if self.members is not None and client_id not in self.members:
            return "this version's cohort was frozen before this client came; it is in the next"
        return None

    def closes(self, rule: Cohort, delivered: AbstractSet[str], now: float) -> str | None:
        """Why the cohort is closed now; None if it is still waited for."""
        if self.members is None or not delivered:
            return None
        members = self.waited_for(delivered)
        if len(delivered) >= math.ceil(len(members) / rule.over_selection):
            return "cohort"
        if not (members - delivered) & self.online:
            return "offline"
        deadline = self.deadline(rule)
        return "deadline" if deadline is not None and now >= deadline else None

    def deadline(self, rule: Cohort) -> float | None:
        """When `closes` has to be asked again even if nothing happens."""
        if self.frozen_at is None:
            return None
        if rule.deadline is not None:
            return self.frozen_at + rule.deadline
        if self.half_at is not None:
            return self.frozen_at + max(_LEAST_SECONDS, _PATIENCE * (self.half_at - self.frozen_at))
        first = 0.0 if self.first_at is None else self.first_at - self.frozen_at
        return self.frozen_at + max(_LEAST_FOR_HALF_SECONDS, _PATIENCE * first)

    def waited_for(self, delivered: AbstractSet[str]) -> AbstractSet[str]:
        """The members but for those that were refused or are silent, and whose update is not in all the same."""
        return (self.members or frozenset()) - ((self.refused | self.silent) - delivered)
