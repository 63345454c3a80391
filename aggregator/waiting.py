"""What the next version waits for that may never come: clients that are not there, or are there and send nothing.

Nothing is decided here. A strategy that waits as it was told looks to people like one that is broken, until it says so.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.strategies import Cohort

__all__ = ["Wait", "Waiting", "wait_of"]

log = logging.getLogger("fedmq.aggregator")

_SURE_SECONDS = 30.0  # in which nothing came, where there are too few clients: they may be about to start
_UNSURE_SECONDS = 300.0  # the same where those that are there may still be training
_USUAL = 3.0  # times as long as versions take is no reason to say anything
_VERSIONS = 8  # whose times are remembered
_SAY_AGAIN_LONGEST = 3600.0  # between two lines of the log; each time twice as long
_NAMES = 5  # of clients in a sentence


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for.

    Attributes:
        what: a sentence with what to do, the same as long as nothing has changed.
        sure: the clients that are known do not suffice; else some of them may be slow only.

    """

    what: str
    sure: bool


def wait_of(core: AggregatorCore) -> Wait | None:
    """What clients the next version waits for; None if it takes updates of any.

    There are two such strategies. A round of FedAvg begins when enough clients are online, and ends with their updates.
    A buffer with one slot for each client needs as many of them as it has slots, or as its rule needs.
    """
    if core.state.finished is not None:
        return None
    if core.strategy.cohort is not None:
        return _of_a_round(core, core.strategy.cohort)
    return _of_slots(core) if core.strategy.one_per_client and core.state.buffer.updates else None


def _of_a_round(core: AggregatorCore, rule: Cohort) -> Wait | None:
    cohort, delivered = core.cohort, {folded.client_id for folded in core.state.buffer.updates}
    if cohort.members is None:
        here = len(cohort.online | delivered)
        what = f"a round of {core.strategy.name} waits for {rule.clients} clients to be online, {here} {_are(here)}"
        return Wait(f"{what}; start more, or set aggregator.clients lower", sure=True)
    members = cohort.waited_for(delivered)
    number = math.ceil(len(members) / rule.over_selection) - len(delivered)
    to_come = (members - delivered) & cohort.online
    what = f"a round of {core.strategy.name} waits for {number} more of its {len(members)} updates"
    if not to_come:
        what += f"; offline {_are(len(members))} {_names(members)}, and others are refused until one of them has come"
        return Wait(f"{what}; start one of them again", sure=True)
    what += f"; online and silent {_are(len(to_come))} {_names(to_come)}; see what `fedmq status` says of them"
    if rule.deadline is None:
        way = "aggregator.deadline would end a round without them"
    else:
        way = "its deadline ends it without them, if one update has come"
    return Wait(f"{what}; {way}", sure=False)


def _of_slots(core: AggregatorCore) -> Wait:
    strategy, buffer, size = core.strategy, core.state.buffer, core.state.tempo.buffer_size
    needs = strategy.rule.needs if strategy.rule is not None else 1
    delivered = {folded.client_id for folded in buffer.updates}
    wanted = needs if len(buffer.updates) < needs else size
    what = f"{strategy.name} waits for {wanted} clients, with one update of each (one_per_client), and has those of"
    what += f" {len(delivered)}: {_names(delivered)}"
    if wanted == needs > 1:
        way = "the rule needs so many: start more clients, or set one_per_client = false"
    else:
        less = "set aggregator.buffer_size lower" if wanted > 2 else "set one_per_client = false"
        way = f"start more clients, or {less}; else the flush timer makes a version without them"
    return Wait(f"{what}; {way}", sure=len(core.state.ledger) < wanted)


class Waiting:
    """Notices a wait that takes too long.

    Attributes:
        said: what is waited for, for people; empty as long as that takes no longer than usual.

    """

    def __init__(self) -> None:
        self.said = ""
        self._news: tuple[int, int, bool] | None = None  # whatever changes here is no standstill
        self._since = 0.0
        self._say_at = math.inf
        self._say_after = _SURE_SECONDS
        self._version_at: tuple[int, float] | None = None
        self._times: deque[float] = deque(maxlen=_VERSIONS)

    def begin(self) -> None:
        """There was no connection, in which nothing could come."""
        self.said, self._news, self._version_at = "", None, None

    def look(self, core: AggregatorCore, now: float) -> None:
        """Say what is waited for, if it is time; `now` in seconds, of any clock."""
        state = core.state
        news = state.version, state.accepted, core.cohort.members is None
        if news != self._news:
            self._take_time(state.version, now)
            self.said, self._news, self._since, self._say_after = "", news, now, _SURE_SECONDS
            self._say_at = math.inf
            return
        wait = wait_of(core)
        if wait is None:
            self.said = ""
            return
        patience = max(
            _SURE_SECONDS if wait.sure else _UNSURE_SECONDS, _USUAL * (median(self._times) if self._times else 0.0)
        )
        if now < self._since + patience:
            return
        self.said = wait.what
        if self._say_at == math.inf:
            self._say_at = now
        if now >= self._say_at:
            self._say_after = min(2 * self._say_after, _SAY_AGAIN_LONGEST)
            self._say_at = now + self._say_after
            log.warning("waiting version=%d seconds=%.0f: %s", state.version, now - self._since, wait.what)

    def _take_time(self, version: int, now: float) -> None:
        if self._version_at is None or self._version_at[0] != version:
            if self._version_at is not None:
                self._times.append(now - self._version_at[1])
            self._version_at = version, now


def _names(clients: Collection[str]) -> str:
    named = sorted(clients)
    more = f" and {len(named) - _NAMES} more" if len(named) > _NAMES else ""
    return ", ".join(named[:_NAMES]) + more


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
