"""Updates that count themselves: each is one-hot at its own number, so the weights say how often it was applied."""

from __future__ import annotations

import hashlib

import numpy as np

from fedmq.edge_client.training import LocalState, Outcome
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Entry, Layout, Vector
from fedmq.schemas.plan import Plan

__all__ = ["CAPACITY", "LAYOUT", "OneHotTraining", "Trainings", "counts"]

CAPACITY = 600
"""Trainings that can be told apart."""

LAYOUT = Layout((Entry("counts", (CAPACITY,)), Entry("noise", (8,))))
"""The counts are exact in any order; the noise is not, so that a replay of the bits has something to get wrong."""


def counts(vector: Vector) -> Vector:
    """How often each training is in these weights, float32 [CAPACITY]."""
    return LAYOUT.views(vector)["counts"]


class Trainings:
    """What was ever trained, kept outside everything that crashes.

    Attributes:
        vectors: the updates, float32 [LAYOUT.size], by their number.
        clients: who trained each.
        numbers: of the updates, by the digest of their encoded bytes.
        over: no training ends any more.

    """

    def __init__(self) -> None:
        self.vectors: list[Vector] = []
        self.clients: list[str] = []
        self.numbers: dict[str, int] = {}
        self.over = False

    def next(self, client_id: str) -> Vector:
        """One more training. Raises ConfigError when there are no numbers left."""
        number = len(self.vectors)
        if number == CAPACITY:
            raise ConfigError("as many trainings as can be counted")
        vector = np.zeros(LAYOUT.size, np.float32)
        vector[number] = 1.0
        vector[CAPACITY:] = np.random.default_rng(number).normal(size=LAYOUT.size - CAPACITY)
        self.vectors.append(vector)
        self.clients.append(client_id)
        self.numbers[hashlib.sha256(codec_named("float32").encode(vector, LAYOUT)).hexdigest()] = number
        return vector


class OneHotTraining:
    """One client's training.

    Args:
        trainings: where its numbers come from.
        client_id: whose it is.
        knows_layout: whether the client has a model of its own, or takes the layout that the aggregator announces.

    """

    def __init__(self, trainings: Trainings, client_id: str, *, knows_layout: bool) -> None:
        self.task_version = "one-hot"
        self._trainings = trainings
        self._client_id = client_id
        self._knows_layout = knows_layout

    def layout(self, plan: Plan) -> Layout | None:
        """The one layout, if it knows it."""
        return LAYOUT if self._knows_layout else None

    def restore(self, local: LocalState) -> None:
        """Nothing stays."""

    def train(self, weights: Vector, layout: Layout, plan: Plan) -> Outcome:
        """One more number, whatever the weights are."""
        return Outcome(self._trainings.next(self._client_id), num_samples=1, metrics={})
