"""What weights score: the task's own `evaluate`, or loss and accuracy."""

from __future__ import annotations

from typing import Any

import torch

from fedmq.schemas.errors import ConfigError
from fedmq.tasks.contract import Task
from fedmq.tasks.datasets import as_dataset, batches
from fedmq.tasks.metrics import checked

__all__ = ["evaluate", "loss_of"]

_BATCH = 256


def loss_of(task: Task) -> Any:
    """The task's loss, (outputs, targets) -> scalar tensor; cross-entropy if it has none."""
    return task.loss or _cross_entropy


def _cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, but not of what is none: over a single output it is 0, whatever the model says."""
    labels = not targets.is_floating_point() or targets.shape == outputs.shape
    if outputs.ndim < 2 or outputs.shape[1] < 2 or not labels:
        raise ConfigError(
            "the default loss is cross-entropy, of outputs [n, classes >= 2] and integer targets [n]; found outputs"
            f" {list(outputs.shape)} and {str(targets.dtype).removeprefix('torch.')} targets {list(targets.shape)};"
            " for a regression define loss = torch.nn.functional.mse_loss"
        )
    return torch.nn.functional.cross_entropy(outputs, targets)


def evaluate(task: Task, model: torch.nn.Module, data: Any) -> tuple[dict[str, float], int]:
    """Metrics of a model on data, and over how many samples they are means. The model's mode is kept.

    Raises:
        ConfigError: the task's `evaluate` returns something that is not a dict of finite numbers.

    """
    dataset = as_dataset(data, "test data")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            metrics = task.evaluate(model, data) if task.evaluate else _loss_and_accuracy(task, model, dataset)
    finally:
        model.train(was_training)
    return checked(metrics, f"task {task.path}: what evaluate() returned"), len(dataset)  # type: ignore[arg-type]


def _loss_and_accuracy(task: Task, model: torch.nn.Module, dataset: Any) -> dict[str, float]:
    loss_function = loss_of(task)
    loss = correct = 0.0
    samples = decisions = 0
    # A generator of its own, because a DataLoader takes a number from torch's otherwise.
    for inputs, targets in batches(dataset, _BATCH, shuffle=False, generator=torch.Generator()):
        outputs = model(inputs)
        loss += float(loss_function(outputs, targets)) * len(inputs)
        samples += len(inputs)
        if not targets.is_floating_point() and outputs.ndim == targets.ndim + 1:  # classes: [n, c, …] against [n, …]
            correct += float((outputs.argmax(1) == targets).sum())
            decisions += targets.numel()
    metrics = {"loss": loss / samples}
    return metrics | {"accuracy": correct / decisions} if decisions else metrics
