"""Version 0: from the task's `build_model` under a seed, or from a file of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from fedmq.schemas.errors import ConfigError, ProtocolError
from fedmq.schemas.layout import Entry, Layout, Vector
from fedmq.schemas.plan import Plan
from fedmq.tasks.contract import Task
from fedmq.tasks.faults import doing

if TYPE_CHECKING:
    import torch

__all__ = ["STATISTICS_KEY", "built", "built_model", "read_weights"]

STATISTICS_KEY = "fedmq.statistics"
"""Key of the safetensors metadata that lists, as JSON, which entries are statistics. `fedmq export` writes it."""

_DTYPES = {"float16": "float16", "float32": "float32", "float64": "float64"}


def built(task: Task, plan: Plan, seed: int) -> tuple[Layout, Vector]:
    """The layout and weights of a new model. Torch's own randomness stays as it was.

    Raises:
        ConfigError: the task has no model, or it cannot be built.

    """
    model = built_model(task, seed)
    from fedmq.tasks.bridge import layout_of, to_vector

    layout = layout_of(model, plan.local_parameters)
    return layout, to_vector(model, layout)


def built_model(task: Task, seed: int) -> torch.nn.Module:
    """What the task's `build_model` makes under this seed. Torch's own randomness stays as it was.

    Raises:
        ConfigError: the task has no model, or it cannot be built.

    """
    if task.build_model is None:
        raise ConfigError(f"task {task.path}: it has no build_model(); give weights with [aggregator] init instead")
    try:
        import torch
    except ImportError as error:
        raise ConfigError(
            "build_model() needs PyTorch: pip install 'fedmq[torch]', or give [aggregator] init"
        ) from error
    with torch.random.fork_rng(devices=[]), doing("building the model"):
        torch.manual_seed(seed)
        model = task.build_model()
    if not isinstance(model, torch.nn.Module):
        raise ConfigError(
            f"task {task.path}: build_model() returned a {type(model).__name__}, expected a torch.nn.Module"
        )
    return model


def read_weights(path: Path, layout: Layout | None = None) -> tuple[Layout, Vector]:
    """The layout and weights of a safetensors file, without torch.

    Args:
        path: the file.
        layout: what it must fit, where a model says so; else the entries of the file in its order, integers left out.

    Raises:
        ConfigError: it cannot be read, or does not fit.

    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise ConfigError(f"init {path}: it cannot be read as safetensors: {error}") from error
    try:
        if layout is None:
            named = _statistics(path, metadata)
            layout = Layout.of(
                Entry(
                    name,
                    array.shape,
                    _DTYPES[array.dtype.name],
                    "statistic" if name in named or name.endswith((".running_mean", ".running_var")) else "parameter",
                )
                for name, array in arrays.items()
                if array.dtype.name in _DTYPES
            )
        shared = {entry.name for entry in layout.entries}
        return layout, layout.flatten({name: np.asarray(array) for name, array in arrays.items() if name in shared})
    except ProtocolError as error:
        raise ConfigError(f"init {path}: it does not fit the model: {error}") from error


def _statistics(path: Path, metadata: Mapping[str, str]) -> list[str]:
    try:
        named = json.loads(metadata.get(STATISTICS_KEY, "[]"))
    except ValueError as error:
        raise ConfigError(f"init {path}: its metadata {STATISTICS_KEY!r} is not JSON: {error}") from error
    if not isinstance(named, list):
        raise ConfigError(f"init {path}: its metadata {STATISTICS_KEY!r} is not a list of names")
    return named
