"""What turns updates into a new version. One strategy is one file here and one line in `STRATEGIES`.

Each is a function that takes its settings and returns a `Strategy`.
"""

from __future__ import annotations

from collections.abc import Callable

from fedmq.aggregator.strategies.fedasync import fedasync, fedasync_delta
from fedmq.aggregator.strategies.fedavg import fedavg
from fedmq.aggregator.strategies.fedbuff import fedbuff
from fedmq.aggregator.strategies.median import median
from fedmq.aggregator.strategies.multi_krum import multi_krum
from fedmq.aggregator.strategies.strategy import Arrival, Batch, Cohort, Rates, Strategy
from fedmq.aggregator.strategies.trimmed_mean import trimmed_mean

__all__ = [
    "STRATEGIES",
    "Arrival",
    "Batch",
    "Cohort",
    "Rates",
    "Strategy",
    "fedasync",
    "fedasync_delta",
    "fedavg",
    "fedbuff",
    "median",
    "multi_krum",
    "trimmed_mean",
]

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "fedbuff": fedbuff,
    "fedasync": fedasync,
    "fedasync_delta": fedasync_delta,
    "fedavg": fedavg,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "multi_krum": multi_krum,
}
