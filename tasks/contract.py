"""What a user writes: a task file, or a function on numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmq.schemas.plan import Plan

__all__ = ["Arrays", "Data", "NumpyTraining", "Task", "Trained"]

Arrays = Mapping[str, npt.NDArray[np.float32]]
"""The model's entries by name, float32, each in its shape."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a device trains and tests on; it never leaves the device.

    Attributes:
        train: a `torch.utils.data.Dataset` of (input, target), or a tuple (inputs, targets) of tensors or arrays.
        test: the same for testing the weights that the device receives; None if it has no test data.

    """

    train: Any
    test: Any = None


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training on numpy arrays returns.

    Attributes:
        weights: every entry that it was given, trained.
        num_samples: training samples that went into it.
        metrics: what the training measured.
        test_metrics: what the received weights scored on the device's own test data, before training.
        num_test_samples: how many samples those are means over.

    """

    weights: Arrays
    num_samples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    num_test_samples: int = 0


NumpyTraining = Callable[[Arrays, Plan], Trained]
"""A client without torch: the received weights (copies, free to change) and the plan in, the trained weights out.

Arrays that are changed in place and returned cost no memory for another model; they are the client's again then.
"""


@dataclass(frozen=True, slots=True)
class Task:
    """A loaded task file: its functions, None where it has none.

    Attributes:
        path: the file.
        version: its `task_version`, or the first 16 hex digits of its SHA-256.
        build_model: () -> torch.nn.Module, the same on every device.
        load_data: (client_id) -> Data, called on the device only.
        loss: (outputs, targets) -> scalar tensor; cross-entropy if None.
        load_test_data: () -> dataset, called on the aggregator only.
        evaluate: (model, dataset) -> metrics, in place of loss and accuracy.
        train: (model, data, plan) -> metrics or None, in place of the brought loop; changes the model.
        train_numpy: a `NumpyTraining`, for a client without torch.

    """

    path: Path
    version: str
    build_model: Callable[[], Any] | None = None
    load_data: Callable[[str], Data] | None = None
    loss: Callable[[Any, Any], Any] | None = None
    load_test_data: Callable[[], Any] | None = None
    evaluate: Callable[[Any, Any], dict[str, float]] | None = None
    train: Callable[[Any, Data, Plan], dict[str, float] | None] | None = None
    train_numpy: NumpyTraining | None = None
