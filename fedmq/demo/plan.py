"""The demo's settings, chosen on validation stretches by `benchmarks/demo_settings.py`.

Each strategy of the comparison had the same budget: twelve pairs of a device's and a server's learning rate, one run
each. Test stretches had been read for two earlier settings before these were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["AGGREGATOR", "NOMINAL", "PLAN", "SECONDS", "SLOWEST", "STRATEGIES", "TARGET", "Tuned"]

PLAN: dict[str, Any] = {
    "local_epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.03,
    "momentum": 0.9,
    "optimizer": "sgd",
}

AGGREGATOR: dict[str, Any] = {"publish_interval": 0.1}
"""For every strategy: a model of 100 kB on one machine need not be spared."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What one strategy has of its own.

    Attributes:
        aggregator: settings of `[aggregator]`.
        plan: settings of `[plan]` that differ from `PLAN`.

    """

    aggregator: Mapping[str, Any]
    plan: Mapping[str, Any] = field(default_factory=dict)

    def also(self, **aggregator: Any) -> Tuned:
        """The same with more settings of `[aggregator]`."""
        return Tuned({**self.aggregator, **aggregator}, self.plan)


STRATEGIES: dict[str, Tuned] = {
    "fedbuff": Tuned({"strategy": "fedbuff", "server_learning_rate": 0.5}),
    "fedasync": Tuned({"strategy": "fedasync"}),
    "fedasync_delta": Tuned({"strategy": "fedasync_delta"}),
    "fedavg": Tuned({"strategy": "fedavg", "server_learning_rate": 1.4}, {"learning_rate": 0.06}),
}

TARGET = 0.90
"""Validation accuracy, mean over the devices, that the clock is stopped at."""

NOMINAL = 0.3
"""Seconds that a job lasts on a device of factor 1; it is waited for what training does not take."""

SLOWEST = 10.0
"""Factor of the slowest device."""

SECONDS = 62.0
"""How long a run lasts."""
