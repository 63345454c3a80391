"""From what a task returns as data to batches."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fedmq.schemas.errors import ConfigError

__all__ = ["as_dataset", "batches"]


def as_dataset(data: Any, what: str = "data") -> Dataset[Any]:
    """A dataset with a length, of (input, target).

    Args:
        data: a map-style `Dataset`, or a tuple (inputs, targets) of tensors or arrays with equal first dimensions.
        what: how to call it in an error.

    Raises:
        ConfigError: it is neither, or empty.

    """
    if isinstance(data, tuple | list) and len(data) == 2:
        inputs, targets = (torch.as_tensor(part) for part in data)
        if len(inputs) != len(targets):
            raise ConfigError(f"{what}: {len(inputs)} inputs and {len(targets)} targets, expected as many of each")
        data = TensorDataset(inputs, targets)
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        found = type(data).__name__
        raise ConfigError(f"{what}: a {found}, expected a torch Dataset with a length or a tuple (inputs, targets)")
    if len(data) == 0:
        raise ConfigError(f"{what}: it is empty")
    dataset: Dataset[Any] = data
    return dataset


def batches(
    dataset: Dataset[Any], batch_size: int, *, shuffle: bool, generator: torch.Generator | None = None
) -> DataLoader[Any]:
    """Batches of a dataset.

    When shuffled for training, a last batch of a single sample is left out: BatchNorm cannot train on one.
    """
    size = len(dataset)  # type: ignore[arg-type]
    lonely = shuffle and size > batch_size > 1 and size % batch_size == 1
    return DataLoader(dataset, batch_size, shuffle=shuffle, drop_last=lonely, generator=generator)
