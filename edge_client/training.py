"""What the service needs of a training, whichever library does it; and the one for plain numpy functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedmq.schemas.errors import ConfigError, ProtocolError
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.mapped import blocks
from fedmq.schemas.messages import Evaluation
from fedmq.schemas.plan import Plan
from fedmq.tasks.contract import Arrays, NumpyTraining, Trained
from fedmq.tasks.metrics import checked

__all__ = ["LocalState", "NumpyTrainer", "Outcome", "Training", "update_vector"]

LocalState = Mapping[str, npt.NDArray[Any]]
"""What stays on the device, by name: local parameters and integer buffers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One job's result.

    Attributes:
        update: float32 [layout.size]: delta of the parameters, trained values of the statistics.
        num_samples: training samples that went into it, at least 1.
        metrics: what the training measured.
        evaluation: what the received weights scored before it, if the device has test data.
        local: what stays on the device, for the outbox to keep with the update.

    """

    update: Vector
    num_samples: int
    metrics: dict[str, float]
    evaluation: Evaluation | None = None
    local: LocalState | None = None


class Training(Protocol):
    """Trains received weights on the device's own data."""

    task_version: str

    def layout(self, plan: Plan) -> Layout | None:
        """The layout that this device's model has; None where it takes the one that the aggregator announces."""

    def restore(self, local: LocalState) -> None:
        """Go on with what stayed on the device the last time."""

    def train(self, weights: Vector, layout: Layout, plan: Plan) -> Outcome:
        """One job: evaluate the weights, train them, say what changed. Whatever it raises is reported, not fatal."""


def update_vector(base: Vector, trained: Vector, layout: Layout) -> Vector:
    """What travels, from its base and what came of training; `trained` becomes it, and memory for no more is taken.

    Raises:
        ConfigError: it is not finite.

    """
    for start, piece in blocks(base[: layout.parameter_size]):
        trained[start : start + len(piece)] -= piece
    # Any NaN or infinity is in the sum, and float32s cannot overflow float64: no array of truths of the model's length.
    if not np.isfinite(trained.sum(dtype=np.float64)):
        raise ConfigError(
            "the training diverged: the weights have a NaN or an infinity; "
            "is the learning rate high, or is there a NaN in the data?"
        )
    return trained


class NumpyTrainer:
    """A client without torch: a function on arrays by name."""

    def __init__(self, function: NumpyTraining, task_version: str) -> None:
        self.task_version = task_version
        self._function = function

    def layout(self, plan: Plan) -> Layout | None:
        """Takes the announced one. Raises ConfigError for a plan that wants parameters kept on the device."""
        if plan.local_parameters:
            raise ConfigError("the plan has local_parameters, which a client without torch cannot keep to itself")
        return None

    def restore(self, local: LocalState) -> None:
        """Nothing stays."""

    def train(self, weights: Vector, layout: Layout, plan: Plan) -> Outcome:
        """Call the function. Raises ConfigError if what it returns does not fit."""
        given = np.empty_like(weights)
        for start, piece in blocks(weights):
            given[start : start + len(piece)] = piece
        trained = self._function(layout.views(given), plan)
        if not isinstance(trained, Trained):
            raise ConfigError(f"the training function returned a {type(trained).__name__}, expected fedmq.Trained")
        try:
            update = update_vector(weights, _trained(trained.weights, given, layout), layout)
        except ProtocolError as error:
            raise ConfigError(f"the training function returned other weights than it got: {error}") from error
        if trained.num_samples < 1:
            raise ConfigError(f"the training function says num_samples = {trained.num_samples}, expected at least 1")
        evaluation = None
        if trained.num_test_samples:
            scores = checked(trained.test_metrics, "the training function's test_metrics")
            evaluation = Evaluation(num_samples=int(trained.num_test_samples), metrics=scores)
        metrics = checked(trained.metrics, "the training function's metrics")
        return Outcome(update, int(trained.num_samples), metrics, evaluation)


def _trained(arrays: Arrays, given: Vector, layout: Layout) -> Vector:
    """What the function returned as one vector: in the memory that it was given, which it is done with, if that can be.

    It cannot if an array lies in there where another belongs.
    """
    places = layout.views(given)
    ours = all(
        name not in places or not np.may_share_memory(array, given) or _is_same(array, places[name])
        for name, array in arrays.items()
    )
    return layout.flatten(arrays, given if ours else None)


def _is_same(array: npt.NDArray[Any], place: Vector) -> bool:
    return bool(
        array.ctypes.data == place.ctypes.data
        and (array.dtype, array.shape, array.strides) == (place.dtype, place.shape, place.strides)
    )
