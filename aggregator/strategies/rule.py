"""What a rule is that needs the updates themselves: running sums are not enough for a median.

A rule sees each delta times min(1, s(tau) / s(reference_staleness)): whole up to the staleness that one plans for,
damped beyond it. No update's factor depends on another's, so a hostile one can only lower its own. Statistics are
trained values and are not scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmq.aggregator.clipping import clip_of
from fedmq.aggregator.folding import BLOCK
from fedmq.aggregator.staleness import Staleness, polynomial
from fedmq.aggregator.strategies.strategy import Arrival, Batch, Combine, Rates, Rule, Strategy, require, require_slots
from fedmq.schemas.layout import Vector

__all__ = ["HOSTILE", "Buffered", "blocks", "by_coordinate", "in_order", "middle", "most_hostile", "rule_strategy"]

HOSTILE = 0.3
"""The share of a buffer that may be hostile, unless it is set."""


@dataclass(frozen=True, slots=True)
class Buffered:
    """The settings that every such strategy has; see `fedbuff`, they mean the same."""

    staleness: Staleness | None
    buffer_size: int | None
    server_learning_rate: float
    reference_staleness: int
    statistics_rate: float
    momentum: float
    flush_timer: bool
    one_per_client: bool
    clip_norm: float | None
    clip_medians: float | None


def rule_strategy(name: str, needs: int, combine: Combine, of: Buffered) -> Strategy:
    """The strategy that goes x += eta (n/K) c, with c what `combine` makes of the updates.

    Raises:
        ConfigError: a number out of its range.

    """
    s = of.staleness or polynomial()
    if of.buffer_size is not None:
        require(name, "buffer_size", of.buffer_size, of.buffer_size >= needs, f"at least {needs}, which the rule needs")
    require(name, "server_learning_rate", of.server_learning_rate, of.server_learning_rate > 0, "more than 0")
    require(name, "statistics_rate", of.statistics_rate, 0 <= of.statistics_rate <= 1, "0 to 1")
    require(name, "reference_staleness", of.reference_staleness, of.reference_staleness >= 0, "at least 0")
    require(name, "momentum", of.momentum, 0 <= of.momentum < 1, "0 up to but not 1")
    require_slots(name, of.one_per_client, of.flush_timer, of.buffer_size)

    def weigh(arrival: Arrival) -> tuple[float, float]:
        return min(1.0, s(arrival.staleness) / s(of.reference_staleness)), 1.0

    def rates(batch: Batch) -> Rates:
        part = min(1.0, batch.count / batch.size)
        return Rates(of.server_learning_rate * part, of.statistics_rate * part, part)

    return Strategy(
        name,
        weigh,
        rates,
        of.buffer_size,
        of.momentum,
        timed=of.flush_timer,
        one_per_client=of.one_per_client,
        clip=clip_of(name, of.clip_norm, of.clip_medians),
        rule=Rule(needs, combine),
    )


def blocks(
    rows: Sequence[Vector], weights: Sequence[float], parameter_size: int
) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """The updates block by block, float32 [n, block]: of the parameters, scaled, and then of the statistics."""
    factors = np.array(weights, np.float32)[:, None]
    size = len(rows[0])
    for begin, end, scale in ((0, parameter_size, factors), (parameter_size, size, np.float32(1))):
        for start in range(begin, end, BLOCK):
            place = slice(start, min(start + BLOCK, end))
            yield place, np.stack([row[place] for row in rows]) * scale


def most_hostile(share: float, count: int) -> int:
    """How many of so many updates that share is, rounded up, at least 1."""
    return max(1, math.ceil(round(share * count, 9)))  # 0.07 * 100 is 7.000000000000001


def in_order(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each column of float32 [n, block] sorted, from the least in row 0 to the greatest."""
    columns = np.ascontiguousarray(block.T)  # as a neighbour of its next one each number is sorted twice as fast
    columns.sort(axis=1)
    return columns.T


def middle(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The median of each column of float32 [n, block]."""
    block = in_order(block)
    low, high = block[(len(block) - 1) // 2], block[len(block) // 2]
    between: npt.NDArray[np.float32] = low + (high - low) * np.float32(0.5)
    return between


def by_coordinate(centre: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> Combine:
    """The rule that makes float32 [block] of float32 [n, block], each coordinate by itself."""

    def combine(rows: Sequence[Vector], weights: Sequence[float], parameter_size: int) -> Vector:
        combined = np.empty(len(rows[0]), np.float32)
        for place, block in blocks(rows, weights, parameter_size):
            combined[place] = centre(block)
        return combined

    return combine
