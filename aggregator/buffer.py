"""The buffer of updates and the step that it makes: running sums, never a list of models."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedmq.aggregator.folding import add_scaled
from fedmq.aggregator.strategies.strategy import Batch, Rates
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.messages import UpdateId

__all__ = ["Buffer", "Folded", "step"]


@dataclass(frozen=True, slots=True)
class Folded:
    """An update that is in the buffer: whose, which, and how stale and heavy it was. The history keeps these."""

    client_id: str
    update: UpdateId
    base_version: int
    staleness: int
    weight: float
    num_samples: int


@dataclass(slots=True)
class Buffer:
    """Sums over the updates since the last version.

    Attributes:
        total: float32 [layout.size]: sum(w D) over parameters, then sum(w y) over statistics.
        weight: sum(w).
        mass: sum(w) if every update had been fresh.
        updates: what was folded in, in order.
        opened: when the first of them came, on the core's clock; None while it is empty.

    """

    total: Vector
    weight: float = 0.0
    mass: float = 0.0
    updates: list[Folded] = field(default_factory=list)
    opened: float | None = None

    @classmethod
    def empty(cls, layout: Layout) -> Buffer:
        """A buffer with nothing in it."""
        return cls(np.zeros(layout.size, np.float32))

    def fold(self, vector: Vector, folded: Folded, mass: float, now: float) -> None:
        """Add one update, float32 [layout.size]: delta of the parameters, trained values of the statistics."""
        add_scaled(self.total, folded.weight, vector)
        self.weight += folded.weight
        self.mass += mass
        self.updates.append(folded)
        if self.opened is None:
            self.opened = now

    def fold_parameters(self, weight: float, sign: float, vector: Vector, parameter_size: int) -> None:
        """Add a part of an update's parameters without counting it again: x_base or -x, for strategies that mix."""
        add_scaled(self.total[:parameter_size], sign * weight, vector[:parameter_size])

    def clear(self) -> None:
        """Empty it, keeping the memory."""
        self.total[...] = 0
        self.weight = self.mass = 0.0
        self.updates = []
        self.opened = None

    def batch(self, size: int) -> Batch:
        """What a strategy needs to know to say how far to go."""
        return Batch(size, len(self.updates), self.weight, self.mass)


def step(weights: Vector, buffer: Buffer, rates: Rates, layout: Layout, velocity: Vector | None, beta: float) -> None:
    """Move the weights by what is in the buffer, in place.

    With server momentum beta and u the step's full direction, w its damping:
    x += w (beta m + (1 - beta) u), m += w (1 - beta) (u - m). Weight 0 changes nothing, beta 0 is the plain step.

    Args:
        weights: x, float32 [layout.size].
        buffer: at least one update; it is not cleared.
        rates: how far.
        layout: of both.
        velocity: m, float32 [layout.parameter_size]; None without momentum. Changed in place.
        beta: the momentum, in [0, 1).

    """
    split = layout.parameter_size
    total = buffer.total
    if velocity is None:
        add_scaled(weights[:split], rates.parameters, total[:split])
    elif rates.damping > 0:
        add_scaled(weights[:split], rates.damping * beta, velocity)
        add_scaled(weights[:split], (1 - beta) * rates.parameters, total[:split])
        velocity *= np.float32(1 - rates.damping * (1 - beta))
        add_scaled(velocity, (1 - beta) * rates.parameters, total[:split])
    statistics = weights[split:]
    statistics += np.float32(rates.statistics) * (total[split:] / np.float32(buffer.weight) - statistics)
