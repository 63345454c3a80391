"""Norm clipping: no update's delta is longer than a bound. Sun et al. 2019, arXiv 1911.07963.

The bound is a fixed norm, or a multiple of the median over clients of their newest norms. Each client counts once in
that median, however fast it sends: to drag it up takes half of the clients, not half of the updates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median_low

import numpy as np

from fedmq.aggregator.folding import BLOCK
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Vector

__all__ = ["Clip", "Norms", "clip_of", "norm", "scaled"]

_CLIENTS = 101  # whose newest norms the median is taken over


@dataclass(frozen=True, slots=True)
class Clip:
    """The bound on the Euclidean norm of an update's parameter delta.

    Attributes:
        norm: itself; None if it follows the median.
        medians: how many medians; None if it is fixed.

    """

    norm: float | None = None
    medians: float | None = None


def clip_of(strategy: str, clip_norm: float | None, clip_medians: float | None) -> Clip | None:
    """The bound of two settings; None without any.

    Raises:
        ConfigError: both are given, or one that is not more than 0.

    """
    if clip_norm is not None and clip_medians is not None:
        raise ConfigError(f"strategy {strategy!r}: clip_norm and clip_medians are both given, expected one of them")
    for key, value in (("clip_norm", clip_norm), ("clip_medians", clip_medians)):
        if value is not None and not value > 0:
            raise ConfigError(f"strategy {strategy!r}: {key} = {value}, expected more than 0")
    return None if clip_norm is None and clip_medians is None else Clip(clip_norm, clip_medians)


@dataclass(slots=True)
class Norms:
    """The newest norm of each of the last 101 clients, unclipped; a part of the durable state."""

    newest: dict[str, float] = field(default_factory=dict)

    def scale(self, clip: Clip, client_id: str, found: float) -> float:
        """Count an update's norm; what its delta is to be multiplied by, at most 1.

        The norm counts in the median that it is compared with, so the first client of a run is not clipped by it.
        """
        bound = clip.norm
        if clip.medians is not None:
            self.newest.pop(client_id, None)  # so that the order is that of their last updates
            self.newest[client_id] = found
            if len(self.newest) > _CLIENTS:
                del self.newest[next(iter(self.newest))]
            bound = clip.medians * median_low(self.newest.values())
        assert bound is not None
        return min(1.0, bound / found) if found else 1.0


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
