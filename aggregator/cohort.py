"""Who a synchronous strategy waits for. The one place where presence decides anything."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from fedmq.aggregator.strategies.strategy import Cohort
from fedmq.schemas.plan import Plan

__all__ = ["CohortState", "plan_of_a_cohort"]

_NEVER = 86_400.0  # seconds: the longest `retrain_after` that a plan takes


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

    """

    online: set[str] = field(default_factory=set)
    members: frozenset[str] | None = None
    frozen_at: float | None = None
    refused: set[str] = field(default_factory=set)

    def open(self) -> None:
        """A version was made: its cohort is still to be frozen."""
        self.members = self.frozen_at = None
        self.refused.clear()

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
        members = self.members - (self.refused - delivered)
        if len(delivered) >= math.ceil(len(members) / rule.over_selection):
            return "cohort"
        if not (members - delivered) & self.online:
            return "offline"
        if rule.deadline is not None and self.frozen_at is not None and now >= self.frozen_at + rule.deadline:
            return "deadline"
        return None

    def deadline(self, rule: Cohort) -> float | None:
        """When `closes` has to be asked again even if nothing happens."""
        return self.frozen_at + rule.deadline if self.frozen_at is not None and rule.deadline is not None else None
