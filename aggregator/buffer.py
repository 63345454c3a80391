"""The buffer of updates and the step that it makes: running sums, and the updates themselves only for a rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from fedmq.aggregator.folding import add_scaled, scale_and_add
from fedmq.aggregator.strategies.strategy import Batch, Rates, Rule
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.messages import UpdateId

__all__ = ["Buffer", "Folded", "step"]


@dataclass(slots=True)  # not frozen: one is made for each update, and that takes twice as long
class Folded:
    """An update that is in the buffer. The history keeps these.

    Attributes:
        weight: how heavy it was when it came in, at its staleness.
        scale: what its delta was multiplied by before that, to be no longer than the bound on norms.
        held_base: for strategies that mix, the version whose weights stood for the base's; None for others.

    """

    client_id: str
    update: UpdateId
    base_version: int
    staleness: int
    weight: float
    num_samples: int
    scale: float = 1.0
    held_base: int | None = None


@dataclass(slots=True)
class Buffer:
    """Sums over the updates since the last version.

    Attributes:
        total: float32 [layout.size]: sum(w D) over parameters, then sum(w y) over statistics.
        weight: sum(w).
        mass: sum(w) if every update had been fresh.
        updates: what was folded in, in order.
        opened: when the first of them came, on the core's clock; None while it is empty.
        rows: for a rule, the last of `updates` themselves, float32 [layout.size] each, clipped and not weighed; nobody
            changes them. They are not in `total`. Those before them were summed for another strategy.

    """

    total: Vector
    weight: float = 0.0
    mass: float = 0.0
    updates: list[Folded] = field(default_factory=list)
    opened: float | None = None
    rows: list[Vector] = field(default_factory=list)

    @classmethod
    def empty(cls, layout: Layout) -> Buffer:
        """A buffer with nothing in it."""
        return cls(np.zeros(layout.size, np.float32))

    def keep(self, vector: Vector, folded: Folded, mass: float, now: float) -> None:
        """Add one update for a rule, as it is."""
        self.rows.append(vector if vector.flags.owndata else vector.copy())  # of a message, it would keep all of that
        self._count(folded, mass, now)

    def sum_rows(self) -> None:
        """Make sums of what was kept for a rule that is not used any more."""
        first = len(self.updates) - len(self.rows)
        for row, folded in zip(self.rows, self.updates[first:], strict=True):
            add_scaled(self.total, folded.weight, row)
        self.rows = []

    def fold(self, vector: Vector, folded: Folded, mass: float, now: float) -> None:
        """Add one update, float32 [layout.size]: delta of the parameters, trained values of the statistics."""
        self.fold_pieces([(0, vector)], folded, mass, now)

    def fold_pieces(self, pieces: Iterable[tuple[int, Vector]], folded: Folded, mass: float, now: float) -> None:
        """Add one update in pieces, each with its place."""
        for start, piece in pieces:
            add_scaled(self.total[start : start + len(piece)], folded.weight, piece)
        self._count(folded, mass, now)

    def _count(self, folded: Folded, mass: float, now: float) -> None:
        self.weight += folded.weight
        self.mass += mass
        self.updates.append(folded)
        if self.opened is None:
            self.opened = now

    def fold_parameters(self, weight: float, sign: float, vector: Vector, parameter_size: int) -> None:
        """Add a part of an update's parameters without counting it again: x_base or -x, for strategies that mix."""
        add_scaled(self.total[:parameter_size], sign * weight, vector[:parameter_size])

    def batch(self, size: int) -> Batch:
        """What a strategy needs to know to say how far to go."""
        return Batch(size, len(self.updates), self.weight, self.mass)


def step(
    weights: Vector,
    buffer: Buffer,
    rates: Rates,
    layout: Layout,
    velocity: Vector | None,
    beta: float,
    rule: Rule | None = None,
) -> tuple[Vector, Vector | None]:
    """The weights and the momentum after what is in the buffer, as new vectors.

    The old ones stay as they are, whoever still writes or shows them. The new weights lie where the buffer's sums lay,
    so that no more than three vectors are in memory: the next buffer is another one.

    With server momentum beta and u the step's full direction, w its damping:
    x += w (beta m + (1 - beta) u), m += w (1 - beta) (u - m). Weight 0 changes nothing, beta 0 is the plain step.

    Args:
        weights: x, float32 [layout.size].
        buffer: at least one update; its sums are gone afterwards.
        rates: how far.
        layout: of both.
        velocity: m, float32 [layout.parameter_size]; None without momentum.
        beta: the momentum, in [0, 1).
        rule: what makes one update of those that are kept; with fewer than it needs nothing moves.

    """
    if rule is not None:
        if len(buffer.rows) < rule.needs:
            return weights, velocity
        kept = [folded.weight for folded in buffer.updates[-len(buffer.rows) :]]
        buffer = Buffer(rule.combine(buffer.rows, kept, layout.parameter_size), weight=1.0)
    split, total = layout.parameter_size, buffer.total
    statistics = weights[split:]
    total[split:] = statistics + np.float32(rates.statistics) * (total[split:] / np.float32(buffer.weight) - statistics)
    if velocity is None:
        scale_and_add(total[:split], rates.parameters, weights[:split])
        return total, None
    if rates.damping == 0:
        total[:split] = weights[:split]
        return total, velocity
    moved, velocity = weights.copy(), velocity.copy()
    moved[split:] = total[split:]
    add_scaled(moved[:split], rates.damping * beta, velocity)
    add_scaled(moved[:split], (1 - beta) * rates.parameters, total[:split])
    velocity *= np.float32(1 - rates.damping * (1 - beta))
    add_scaled(velocity, (1 - beta) * rates.parameters, total[:split])
    return moved, velocity
