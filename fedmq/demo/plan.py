"""The demo's settings, chosen on validation stretches alone and set down before any test stretch was read."""

from __future__ import annotations

from typing import Any

__all__ = ["AGGREGATOR", "NOMINAL", "PLAN", "SECONDS", "SLOWEST", "TARGET"]

PLAN: dict[str, Any] = {
    "local_epochs": 2,
    "batch_size": 32,
    "learning_rate": 0.05,
    "momentum": 0.9,
    "optimizer": "sgd",
}

AGGREGATOR: dict[str, Any] = {"publish_interval": 0.1}
"""For every strategy: a model of 100 kB on one machine need not be spared."""

TARGET = 0.90
"""Validation accuracy, mean over the devices, that the clock is stopped at."""

NOMINAL = 0.3
"""Seconds that a job lasts on a device of factor 1; it is waited for what training does not take."""

SLOWEST = 10.0
"""Factor of the slowest device."""

SECONDS = 62.0
"""How long a run lasts."""
