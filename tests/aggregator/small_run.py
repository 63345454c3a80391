"""A run small enough to work out by hand: the real core, vectors of a few numbers, time as an argument."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.judged import Judged
from fedmq.aggregator.state import State
from fedmq.aggregator.strategies import Strategy, fedbuff
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.layout import Entry, Layout, Vector
from fedmq.schemas.messages import Head, Later, Missing, Offer, UpdateId
from fedmq.schemas.plan import Plan

RUN = "0" * 31 + "1"


def outbox(number: int) -> str:
    """An outbox id."""
    return f"{number:032x}"


def layout_of(parameters: int, statistics: int = 0) -> Layout:
    """So many parameters in one entry, and so many statistics in another."""
    entries = [Entry("weight", (parameters,)), Entry("mean", (statistics,), kind="statistic")]
    return Layout(tuple(entry for entry in entries if entry.size))


def vector(*numbers: float) -> Vector:
    """These numbers as float32."""
    return np.array(numbers, np.float32)


def offer_of(
    values: Sequence[float] | Vector,
    layout: Layout,
    *,
    client_id: str = "alice",
    sequence: int = 0,
    outbox_id: str = outbox(1),
    codec: str = "float32",
    **other: Any,
) -> tuple[Offer, memoryview]:
    """An offer and its body; `other` are fields of the offer."""
    body = codec_named(codec).encode(np.asarray(values, np.float32), layout)
    fields: dict[str, Any] = {
        "run": RUN,
        "client_id": client_id,
        "update": UpdateId(outbox_id=outbox_id, sequence=sequence),
        "base_version": 0,
        "layout": layout.digest,
        "codec": codec,
        "size": len(body),
        "digest": hashlib.sha256(body).hexdigest(),
        "num_samples": 10,
    }
    return Offer(**(fields | other)), memoryview(body)


def plain_fedbuff(buffer_size: int = 1, **settings: Any) -> Strategy:
    """FedBuff that goes the whole way to the mean of its buffer, for numbers that are easy to follow."""
    return fedbuff(buffer_size=buffer_size, **({"server_learning_rate": 1.0} | settings))


def head_of(version: int, size: int) -> Head:
    """The head of a snapshot of so many bytes."""
    return Head(
        run=RUN,
        version=version,
        plan=Plan(),
        layout=layout_of(1).digest,
        codec="float32",
        size=size,
        digest=f"{version:064x}",
    )


class SmallRun:
    """One core, and clients that deliver to it.

    Args:
        strategy: plain FedBuff with a version for each update if None.
        parameters, statistics: version 0.
        goal: none if None.

    """

    def __init__(
        self,
        strategy: Strategy | None = None,
        parameters: Sequence[float] = (0.0,),
        statistics: Sequence[float] = (),
        goal: Goal | None = None,
        max_staleness: int | None = None,
    ) -> None:
        self.layout = layout_of(len(parameters), len(statistics))
        state = State.initial(RUN, self.layout, vector(*parameters, *statistics))
        self.strategy = strategy or plain_fedbuff()
        rules = Rules(RUN, self.layout, max_staleness=max_staleness)
        self.core = AggregatorCore(state, self.strategy, rules, goal or Goal())
        self.seconds = 0.0
        self._sequences: Counter[str] = Counter()
        self.publish()

    @property
    def state(self) -> State:
        return self.core.state

    @property
    def weights(self) -> list[float]:
        return [float(x) for x in self.state.weights]

    def publish(self) -> None:
        """Show the present version, as the publisher does."""
        self.core.published(self.state.version, self.state.weights.copy, self.seconds)

    def judge(
        self, client_id: str, values: Sequence[float] | Vector, *, now: float | None = None, **other: Any
    ) -> Judged | Missing | Later:
        """Offer an update of the present version, or of `base_version`; at `now`, or a second after the one before."""
        self.seconds = self.seconds + 1 if now is None else now
        fields = {"base_version": self.state.version, "sequence": self._sequences[client_id]} | other
        offer, body = offer_of(values, self.layout, client_id=client_id, **fields)
        self._sequences[client_id] += 1
        return self.core.judge(client_id, offer, body, self.seconds)

    def deliver(self, client_id: str, *values: float, **other: Any) -> Judged:
        """Offer an update that is accepted; each new version is published at once."""
        before = self.state.version
        receipt = self.judge(client_id, values, **other)
        assert isinstance(receipt, Judged)
        assert receipt.verdict == "accepted", receipt
        if self.state.version > before:
            self.publish()
        return receipt

    def make_versions(self, count: int) -> None:
        """So many versions in which nothing moves, for strategies with K = 1."""
        still = [0.0] * self.layout.parameter_size
        for _ in range(count):
            self.deliver("idle", *still, *self.weights[self.layout.parameter_size :])
