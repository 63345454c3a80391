"""FedMQ: asynchronous federated learning over MQTT."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmq.aggregator.staleness import constant, exponential, hinge, polynomial
    from fedmq.aggregator.strategies import (
        Strategy,
        fedasync,
        fedasync_delta,
        fedavg,
        fedbuff,
        median,
        multi_krum,
        trimmed_mean,
    )
    from fedmq.device import EdgeClient
    from fedmq.sandbox import Sandbox
    from fedmq.schemas.errors import ConfigError, FedMQError, ProtocolError, StoreError, TransportError
    from fedmq.schemas.plan import Plan
    from fedmq.server import Aggregator, Version
    from fedmq.settings import Settings, load_settings
    from fedmq.tasks.contract import Data, Trained
    from fedmq.transport.memory import Faults

__all__ = [
    "Aggregator",
    "ConfigError",
    "Data",
    "EdgeClient",
    "Faults",
    "FedMQError",
    "Plan",
    "ProtocolError",
    "Sandbox",
    "Settings",
    "StoreError",
    "Strategy",
    "Trained",
    "TransportError",
    "Version",
    "constant",
    "exponential",
    "fedasync",
    "fedasync_delta",
    "fedavg",
    "fedbuff",
    "hinge",
    "load_settings",
    "median",
    "multi_krum",
    "polynomial",
    "trimmed_mean",
]

# Where the public names live. Loaded when one is first asked for: a client without torch must not wait for torch, and a
# task file that takes `Data` must not load an aggregator.
_HOMES = {
    "fedmq.aggregator.staleness": ("constant", "exponential", "hinge", "polynomial"),
    "fedmq.aggregator.strategies": (
        "Strategy",
        "fedasync",
        "fedasync_delta",
        "fedavg",
        "fedbuff",
        "median",
        "multi_krum",
        "trimmed_mean",
    ),
    "fedmq.device": ("EdgeClient",),
    "fedmq.sandbox": ("Sandbox",),
    "fedmq.schemas.errors": ("ConfigError", "FedMQError", "ProtocolError", "StoreError", "TransportError"),
    "fedmq.schemas.plan": ("Plan",),
    "fedmq.server": ("Aggregator", "Version"),
    "fedmq.settings": ("Settings", "load_settings"),
    "fedmq.tasks.contract": ("Data", "Trained"),
    "fedmq.transport.memory": ("Faults",),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'fedmq' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
