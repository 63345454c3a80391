"""The same network, trained on everyone's windows in one place: what federated learning is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fedmq.demo.plan import PLAN
from fedmq.demo.watch import Split, split, unseen, wearers
from fedmq.demo.watch_task import build_model

__all__ = ["CentralResult", "accuracy_of", "train_centrally"]

PATIENCE = 15  # epochs without a lower validation loss
MOST_EPOCHS = 200


@dataclass(frozen=True, slots=True)
class CentralResult:
    """What central training has come to.

    Attributes:
        accuracy: on the participants' test stretches, of the weights with the lowest validation loss.
        accuracy_unseen: the same of those whom nobody trained on.
        epochs: until the validation loss had stopped falling.
        seconds: that this took.

    """

    accuracy: float
    accuracy_unseen: float
    epochs: int
    seconds: float


def accuracy_of(weights: Mapping[str, Any], client_ids: Sequence[str]) -> float:
    """The share of windows of these wearers' test stretches that weights by name get right."""
    model = build_model()
    model.load_state_dict({name: torch.tensor(np.asarray(array)) for name, array in weights.items()})
    return _accuracy(model, *_pooled(client_ids, lambda part: part.test))


def train_centrally(seed: int) -> CentralResult:
    """Train with the federated plan's optimizer on all participants' training stretches, pooled.

    It stops when the validation loss has not fallen for PATIENCE epochs, and reads the test stretches once, with the
    weights of the lowest validation loss.
    """
    begun = time.perf_counter()
    # So small a network gains nothing from a second thread, and two that wait for each other can take minutes.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = build_model()
    inputs, targets = _pooled(wearers(), lambda part: part.train)
    held_inputs, held_targets = _pooled(wearers(), lambda part: part.validation)
    optimizer = torch.optim.SGD(model.parameters(), PLAN["learning_rate"], momentum=PLAN["momentum"])
    lowest, best, best_epoch, epoch = float("inf"), model.state_dict(), 0, 0
    while epoch < min(best_epoch + PATIENCE, MOST_EPOCHS):
        epoch += 1
        model.train()
        for batch in torch.split(torch.randperm(len(inputs)), PLAN["batch_size"]):
            optimizer.zero_grad()
            cross_entropy(model(inputs[batch]), targets[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.eval()
        with torch.no_grad():
            loss = float(cross_entropy(model(held_inputs), held_targets))
        if loss < lowest:
            lowest, best_epoch = loss, epoch
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seconds = time.perf_counter() - begun
    arrays = {name: tensor.numpy() for name, tensor in best.items()}
    return CentralResult(accuracy_of(arrays, wearers()), accuracy_of(arrays, unseen()), epoch, seconds)


def _pooled(client_ids: Sequence[str], part: Callable[[Split], Any]) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [part(split(client_id)) for client_id in client_ids]
    return tuple(torch.from_numpy(np.concatenate([p[place] for p in parts])) for place in (0, 1))  # type: ignore[return-value]


def _accuracy(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(inputs).argmax(1) == targets).float().mean())
