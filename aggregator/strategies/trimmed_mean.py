"""Coordinate-wise trimmed mean of the deltas of K updates. Yin et al. 2018, arXiv 1803.01498."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedmq.aggregator.staleness import Staleness
from fedmq.aggregator.strategies.rule import HOSTILE, Buffered, by_coordinate, in_order, most_hostile, rule_strategy
from fedmq.aggregator.strategies.strategy import Strategy, require

__all__ = ["trimmed_mean"]


def trimmed_mean(
    *,
    hostile: float = HOSTILE,
    staleness: Staleness | None = None,
    buffer_size: int | None = None,
    server_learning_rate: float = 0.7,
    reference_staleness: int = 4,
    statistics_rate: float = 0.5,
    momentum: float = 0.0,
    flush_timer: bool = True,
    one_per_client: bool = False,
    clip_norm: float | None = None,
    clip_medians: float | None = None,
) -> Strategy:
    """x += eta (n/K) times the mean of each coordinate without its b largest and b smallest values.

    b = ceil(hostile n), but no more than leaves one value, and at least 1: so it needs 3 updates. With no more than b
    of them hostile, each coordinate stays within what the others sent.

    Args:
        hostile: the share of a buffer's updates that may be hostile, more than 0 and less than 0.5.
        staleness: s(tau); polynomial with a = 0.5 if None.
        buffer_size: K, at least 3; None follows the number of clients at work.
        server_learning_rate: eta.
        reference_staleness: up to which a delta counts whole, in versions.
        statistics_rate: how far statistics go towards the rule's, in [0, 1].
        momentum: of the server.
        flush_timer: do not wait for K longer than twice the usual; but for the 3 that the rule needs.
        one_per_client: a buffer takes one update of each client; its next one waits.
        clip_norm: no delta counts as longer than this; None without such a bound.
        clip_medians: the same bound as a multiple of the clients' median norm.

    Raises:
        ConfigError: a number out of its range.

    """
    require("trimmed_mean", "hostile", hostile, 0 < hostile < 0.5, "more than 0, less than 0.5")
    of = Buffered(
        staleness,
        buffer_size,
        server_learning_rate,
        reference_staleness,
        statistics_rate,
        momentum,
        flush_timer,
        one_per_client,
        clip_norm,
        clip_medians,
    )

    def trimmed(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        count = len(block)
        trim = min(most_hostile(hostile, count), (count - 1) // 2)
        kept: npt.NDArray[np.float32] = in_order(block)[trim : count - trim].mean(axis=0, dtype=np.float32)
        return kept

    return rule_strategy("trimmed_mean", 3, by_coordinate(trimmed), of)
