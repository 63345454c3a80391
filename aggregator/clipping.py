"""Norms of updates and bounds on them. Clipping makes what is longer shorter: Sun et al. 2019, arXiv 1911.07963.

A bound is a fixed norm, or a multiple of the median over clients of their newest norms. Each client counts once in
that median, however fast it sends: to drag it anywhere takes half of the clients, not half of the updates. Of an even
number a bound that refuses takes the higher middle one, so that no minority decides who is refused, and one that clips
the lower one, so that none decides how far the model goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median_high, median_low

import numpy as np

from fedmq.aggregator.folding import BLOCK
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Vector

__all__ = ["Bound", "Norms", "bound_of", "clip_of", "norm", "scaled"]

Median = Callable[[list[float]], float]

_CLIENTS = 101  # whose newest norms the median is taken over


@dataclass(frozen=True, slots=True)
class Bound:
    """On the Euclidean norm of an update's parameter delta; of two, the smaller one.

    Attributes:
        norm: a fixed one; None for none.
        medians: one that is so many medians; None for none.

    """

    norm: float | None = None
    medians: float | None = None


def clip_of(strategy: str, clip_norm: float | None, clip_medians: float | None) -> Bound | None:
    """The bound of a strategy's two settings, see `bound_of`; ConfigError if both are given."""
    if clip_norm is not None and clip_medians is not None:
        raise ConfigError(f"strategy {strategy!r}: clip_norm and clip_medians are both given, expected one of them")
    return bound_of(f"strategy {strategy!r}: ", "clip", clip_norm, clip_medians)


def bound_of(where: str, name: str, norm: float | None, medians: float | None) -> Bound | None:
    """The bound of two settings, `{name}_norm` and `{name}_medians`; None without any.

    Raises:
        ConfigError: one is not more than 0.

    """
    for key, value in ((f"{name}_norm", norm), (f"{name}_medians", medians)):
        if value is not None and not value > 0:
            raise ConfigError(f"{where}{key} = {value}, expected more than 0")
    return None if norm is None and medians is None else Bound(norm, medians)


@dataclass(slots=True)
class Norms:
    """The newest norm of each of the last 101 clients, unclipped; a part of the durable state.

    One that moves nothing is not among them: else a fleet of which half have nothing to say would silence the rest.
    """

    newest: dict[str, float] = field(default_factory=dict)

    def count(self, client_id: str, found: float) -> None:
        """An update of this norm was judged."""
        if not found:
            return
        self.newest.pop(client_id, None)  # so that the order is that of their last updates
        self.newest[client_id] = found
        if len(self.newest) > _CLIENTS:
            del self.newest[next(iter(self.newest))]

    def limit(self, bound: Bound, client_id: str, found: float, clients: int = 1) -> float:
        """Above what an update of this norm is refused; it counts in the median itself.

        Args:
            bound: fixed, or a multiple of the median.
            client_id: whose update it is.
            found: its norm.
            clients: with fewer than so many in it, a median says nothing.

        """
        return self._compared(bound, client_id, found, median_high, clients)

    def scale(self, bound: Bound, client_id: str, found: float) -> float:
        """What the delta of an update of this norm is to be multiplied by, at most 1.

        Its norm counts in the median, so the first client of a run is not clipped by it.
        """
        return min(1.0, self._compared(bound, client_id, found, median_low) / found) if found else 1.0

    def _compared(self, bound: Bound, client_id: str, found: float, median: Median, clients: int = 1) -> float:
        fixed = math.inf if bound.norm is None else bound.norm
        if bound.medians is None:
            return fixed
        others = [known for client, known in self.newest.items() if client != client_id]
        norms = [*others[-(_CLIENTS - 1) :], found]
        return min(fixed, bound.medians * median(norms)) if len(norms) >= clients else fixed


def norm(vector: Vector) -> float:
    """The Euclidean norm of a float32 vector."""
    squares = 0.0
    for start in range(0, len(vector), BLOCK):
        part = vector[start : start + BLOCK]
        squares += float(np.vdot(part, part))
    return math.sqrt(squares)


def scaled(vector: Vector, scale: float, parameter_size: int) -> Vector:
    """The update with its delta multiplied by `scale`; statistics are values, not steps, and stay."""
    if scale == 1.0:
        return vector
    clipped = vector.copy()
    clipped[:parameter_size] *= np.float32(scale)
    return clipped
