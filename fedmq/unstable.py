"""Whether a run has become worse, and what calms it: late updates make a model swing when few devices are fast."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from statistics import median

from fedmq.aggregator.config import AggregatorSettings
from fedmq.aggregator.strategies import STRATEGIES

__all__ = ["advice"]

_LATE = 0.5  # versions: below, it is something else
_CALM = 0.35
"""A server learning rate at which nothing swings up to a mean staleness of 4; see docs/algorithms.md."""


def advice(losses: Sequence[float], mean_staleness: float, clients: int, settings: AggregatorSettings) -> str | None:
    """A sentence for who watches a run, None if there is nothing to say.

    Args:
        losses: the devices' mean, in the order of the versions that were measured.
        mean_staleness: of the updates, in versions.
        clients: that took part.
        settings: of the aggregator.

    """
    takes = inspect.signature(STRATEGIES[settings.strategy]).parameters
    if len(losses) < 6 or mean_staleness < _LATE or "server_learning_rate" not in takes or "buffer_size" not in takes:
        return None
    best, last = min(losses), median(losses[-3:])
    if last <= 2 * best or last <= losses[0] / 10:  # a last swing around the optimum is no accident
        return None
    rate = settings.server_learning_rate or takes["server_learning_rate"].default
    ways = [f"--set aggregator.server_learning_rate={_CALM}"] if rate > _CALM else []
    ways += [f"--set aggregator.buffer_size={clients}"] if (settings.buffer_size or 1) < clients else []
    if not ways:
        return None
    return (
        f"the loss was {best:.3g} and is {last:.3g}: with a mean staleness of {mean_staleness:.1f} and"
        f" {clients} {'device' if clients == 1 else 'devices'} the model may swing; try {' or '.join(ways)}"
    )
