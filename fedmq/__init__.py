"""FedMQ: asynchronous federated learning over MQTT."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmq.sandbox import Sandbox
    from fedmq.schemas.errors import ConfigError, FedMQError, ProtocolError, StoreError, TransportError
    from fedmq.schemas.plan import Plan
    from fedmq.tasks.contract import Data, Trained

__all__ = [
    "ConfigError",
    "Data",
    "FedMQError",
    "Plan",
    "ProtocolError",
    "Sandbox",
    "StoreError",
    "Trained",
    "TransportError",
]

# Where each public name lives. Loaded when it is first asked for: a client without torch must not wait for torch, and
# a task file that takes `Data` must not load an aggregator.
_HOMES = {
    "ConfigError": "fedmq.schemas.errors",
    "Data": "fedmq.tasks.contract",
    "FedMQError": "fedmq.schemas.errors",
    "Plan": "fedmq.schemas.plan",
    "ProtocolError": "fedmq.schemas.errors",
    "Sandbox": "fedmq.sandbox",
    "StoreError": "fedmq.schemas.errors",
    "Trained": "fedmq.tasks.contract",
    "TransportError": "fedmq.schemas.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedmq' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
