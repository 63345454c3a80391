"""The strategies under which each update moves the weights by exactly itself, whatever came with it or before."""

from __future__ import annotations

from fedmq.aggregator.staleness import constant
from fedmq.aggregator.strategies import Strategy, fedbuff
from fedmq.aggregator.strategies.fedasync import fedasync_delta

__all__ = ["STRATEGIES"]

STRATEGIES: dict[str, Strategy] = {
    "fedasync_delta": fedasync_delta(staleness=constant(), alpha=1.0),
    "fedbuff": fedbuff(staleness=constant(), buffer_size=4, server_learning_rate=4.0, normalisation="paper"),
    "slots": fedbuff(
        staleness=constant(), buffer_size=2, server_learning_rate=2.0, normalisation="paper", one_per_client=True
    ),
}
