"""What must be true when everything has settled; each sentence that comes out of here is a broken promise."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from fedmq.aggregator.buffer import Buffer, step
from fedmq.aggregator.export import Run
from fedmq.aggregator.state import VersionRecord
from fedmq.aggregator.strategies import Strategy
from fedmq.schemas.layout import Vector
from tests.chaos.observer import Update, Verdict
from tests.chaos.one_hot_task import PLACES

__all__ = ["Evidence", "broken_promises", "replayed"]

_RECORD = TypeAdapter(VersionRecord)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is left when everybody has ended.

    Attributes:
        run: as on the disk.
        strategy: that made it.
        counts_one: whether an update moves its place by exactly 1 under this strategy.
        client_ids: by number.
        stored: by client, how many updates its outbox has ever held.
        waiting: by client, what its outbox still holds.
        verdicts, digests: by update, what was heard.

    """

    run: Run
    strategy: Strategy
    counts_one: bool
    client_ids: tuple[str, ...]
    stored: Mapping[str, int]
    waiting: Mapping[str, int]
    verdicts: Mapping[Update, set[Verdict]]
    digests: Mapping[Update, set[str]]


def broken_promises(evidence: Evidence) -> list[str]:
    """In one sentence each, what is not as it must be."""
    numbers = {client_id: number for number, client_id in enumerate(evidence.client_ids)}
    applied = _applied(evidence)
    found = []
    for update, heard in evidence.verdicts.items():
        # A broker that was killed puts old offers back: what is too old for the ledger is no other verdict, but none.
        if sum(verdict.reason != "expired" for verdict in heard) > 1:
            found.append(f"{update}: different verdicts {heard}")
    found += [f"{update}: offered with different content" for update, n in evidence.digests.items() if len(n) > 1]
    found += [f"{client_id}: {left} updates are in its outbox" for client_id, left in evidence.waiting.items() if left]
    verdicts: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for update, heard in evidence.verdicts.items():
        verdicts[update.client_id, update.sequence] |= {verdict.reason or verdict.verdict for verdict in heard}
    for client_id, number in numbers.items():
        for sequence in range(PLACES):
            count, heard_of_it = applied[number * PLACES + sequence], verdicts[client_id, sequence]
            right = _right_counts(heard_of_it, stored=sequence < evidence.stored[client_id])
            if count not in right:
                said = ", ".join(heard_of_it) or "no receipt"
                found.append(f"{client_id} {sequence}: counts {count:g} times with {said}")
    counted, accepted = sum(len(record["updates"]) for record in evidence.run.history), evidence.run.figures["accepted"]
    if counted != accepted:
        found.append(f"{accepted} were accepted, the history has {counted}")
    if not np.array_equal(replayed(evidence.run, evidence.strategy, numbers), evidence.run.weights):
        found.append("the weights are not those that the history gives")
    return found


def _right_counts(heard: set[str], *, stored: bool) -> tuple[int, ...]:
    if "accepted" in heard:
        return (1,)
    if "expired" in heard:
        return (0, 1)
    # An update leaves the outbox with its receipt only: where the observer missed that, it was an accepting one, since
    # no device in this run gives a reason for another.
    return (0,) if heard or not stored else (1,)


def _applied(evidence: Evidence) -> Any:
    """How often each place was counted: in the weights where they say it, else in the history."""
    if evidence.counts_one:
        return evidence.run.weights
    counts = Counter(
        evidence.client_ids.index(each["client_id"]) * PLACES + each["update"]["sequence"]
        for record in evidence.run.history
        for each in record["updates"]
    )
    return np.array([counts[place] for place in range(len(evidence.run.weights))])


def replayed(run: Run, strategy: Strategy, numbers: Mapping[str, int]) -> Vector:
    """The newest weights from version 0, following the history without any crash."""
    weights, buffer = np.zeros_like(run.weights), Buffer.empty(run.layout)
    one_hot = np.zeros_like(run.weights)
    for entry in run.history:
        record = _RECORD.validate_python({name: entry[name] for name in VersionRecord.__slots__})
        for folded in record.updates:
            place = numbers[folded.client_id] * PLACES + folded.update.sequence
            one_hot[place] = 1
            buffer.fold(one_hot, folded, 1.0, 0.0)
            one_hot[place] = 0
        rates = strategy.rates(buffer.batch(record.buffer_size))
        weights, _ = step(weights, buffer, rates, run.layout, None, 0.0)
        buffer = Buffer.empty(run.layout)
    return weights
