"""Coordinate-wise median of the deltas of K updates. Yin et al. 2018, arXiv 1803.01498."""

from __future__ import annotations

from fedmq.aggregator.staleness import Staleness
from fedmq.aggregator.strategies.rule import Buffered, by_coordinate, middle, rule_strategy
from fedmq.aggregator.strategies.strategy import Strategy

__all__ = ["median"]


def median(
    *,
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
    """Each coordinate by itself: x += eta (n/K) m, with m the median of D; of an even n the mean of the middle two.

    With fewer than half of the buffer hostile, each coordinate stays within what the others sent. It needs 3 updates,
    since the median of two is their mean. It is as far from the mean as the devices' data differ.

    Args:
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
    return rule_strategy("median", 3, by_coordinate(middle), of)
