"""The plain PyTorch training loop, and what is around it: weights in, an update out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from fedmq.edge_client.training import LocalState, Outcome, update_vector
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.messages import Evaluation
from fedmq.schemas.plan import Plan
from fedmq.tasks.bridge import layout_of, load_local, load_vector, local_state, to_vector
from fedmq.tasks.contract import Data, Task
from fedmq.tasks.datasets import as_dataset, batches
from fedmq.tasks.evaluation import evaluate, loss_of
from fedmq.tasks.faults import doing
from fedmq.tasks.metrics import checked

__all__ = ["TorchTrainer", "train"]


def train(
    model: torch.nn.Module,
    dataset: Any,
    plan: Plan,
    loss_function: Callable[[Any, Any], torch.Tensor],
    generator: torch.Generator | None = None,
    data: str = "the data",
) -> dict[str, float]:
    """Train a model in place as the plan says; the mean loss of the last pass.

    With a proximal term rho, the loss is that plus rho/2 |x - x_base|^2 (Li et al. 2020, arXiv 1812.06127).

    Raises:
        ConfigError: the loss is no number before the first step.

    """
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    anchors = [p.detach().clone() for p in parameters] if plan.proximal else []
    optimizer = _optimizer(parameters, plan)
    loader = batches(dataset, plan.batch_size, shuffle=True, generator=generator)
    steps_left = plan.local_steps or plan.local_epochs * len(loader)
    total = 0.0
    counted = 0
    begun = False
    while steps_left > 0:
        total, counted = 0.0, 0
        for inputs, targets in loader:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(model(inputs), targets)
            if not begun and not math.isfinite(float(loss.detach())):
                found = str(float(loss.detach())).replace("nan", "NaN")
                raise ConfigError(f"the loss is {found} before training: look for NaN or infinities in {data}")
            begun = True
            loss.backward()  # type: ignore[no-untyped-call]
            for parameter, anchor in zip(parameters, anchors, strict=False):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - anchor, alpha=plan.proximal)
            optimizer.step()
            total += float(loss.detach())
            counted += 1
            steps_left -= 1
            if steps_left == 0:
                break
    return {"loss": total / counted}


class TorchTrainer:
    """Trains a task's model on this device's data. The model is built once; integer buffers live on in it.

    Args:
        task: with build_model and load_data.
        client_id: whose data to load.
        seed: makes local parameters, shuffling and dropout repeatable, for the sandbox; None in the field.
        max_epochs: this device's share, if it is less than the plan's.
        max_steps: the same in steps.

    Raises:
        ConfigError: the task's model or data cannot be used.

    """

    def __init__(
        self,
        task: Task,
        client_id: str,
        *,
        seed: int | None = None,
        max_epochs: int | None = None,
        max_steps: int | None = None,
    ) -> None:
        if task.build_model is None or task.load_data is None:
            raise ConfigError(f"task {task.path}: training with torch needs build_model() and load_data(client_id)")
        self.task_version = task.version
        self._task = task
        self._client_id = client_id
        self._seed = seed
        self._max_epochs = max_epochs
        self._max_steps = max_steps
        self._jobs = 0
        with self._randomness():
            with doing("building the model"):
                self.model: torch.nn.Module = task.build_model()
            with doing(f"loading the data of {client_id!r}"):
                self.data = task.load_data(client_id)
        if not isinstance(self.data, Data):
            found = type(self.data).__name__
            raise ConfigError(f"task {task.path}: load_data returned a {found}, expected fedmq.Data(train=…, test=…)")
        self.dataset = as_dataset(self.data.train, f"train data of {client_id!r}")
        self.num_samples = len(self.dataset)  # type: ignore[arg-type]

    def layout(self, plan: Plan) -> Layout:
        """The model's, without what the plan leaves to the devices."""
        return layout_of(self.model, plan.local_parameters)

    def restore(self, local: LocalState) -> None:
        """Put back local parameters and integer buffers."""
        load_local(self.model, local)

    def train(self, weights: Vector, layout: Layout, plan: Plan) -> Outcome:
        """One job: evaluate the received weights, train them, say what changed. A failed one leaves nothing behind."""
        before = local_state(self.model, layout)
        try:
            return self._train(weights, layout, self._share(plan))
        except BaseException:
            load_local(self.model, before)  # or a NaN in a local parameter would spoil every later job
            raise

    def _train(self, weights: Vector, layout: Layout, plan: Plan) -> Outcome:
        load_vector(self.model, layout, weights)
        # What is trained from: narrow entries hold what was received roughly, and the rest would count as trained.
        narrow = any(entry.dtype in ("float16", "bfloat16") for entry in layout.entries)
        base = to_vector(self.model, layout) if narrow else weights
        self._jobs += 1
        with self._randomness() as generator:
            evaluation = None
            if self.data.test is not None:
                with doing("evaluating on the test data"):
                    metrics, count = evaluate(self._task, self.model, self.data.test)
                evaluation = Evaluation(num_samples=count, metrics=metrics)
            with doing("training"):
                if self._task.train is not None:
                    measured = self._task.train(self.model, self.data, plan) or {}
                else:
                    data = f"load_data({self._client_id!r})"
                    measured = train(self.model, self.dataset, plan, loss_of(self._task), generator, data)
        update = update_vector(base, to_vector(self.model, layout), layout)
        metrics = checked(measured, f"task {self._task.path}: what train() returned")
        return Outcome(update, self.num_samples, metrics, evaluation, local_state(self.model, layout))

    def _share(self, plan: Plan) -> Plan:
        """The plan with this device's share of the work: less of the same, nothing else."""
        epochs = min(plan.local_epochs, self._max_epochs or plan.local_epochs)
        if plan.local_steps is None and self._max_steps is None:
            return plan.model_copy(update={"local_epochs": epochs})
        pass_steps = len(batches(self.dataset, plan.batch_size, shuffle=True))
        bounds = [plan.local_steps or epochs * pass_steps]
        bounds += [self._max_steps] if self._max_steps is not None else []
        bounds += [self._max_epochs * pass_steps] if self._max_epochs is not None else []
        return plan.model_copy(update={"local_steps": min(bounds)})

    def _randomness(self) -> Any:
        if self._seed is None:
            return nullcontext(None)
        digest = hashlib.sha256(f"{self._seed}/{self._client_id}/{self._jobs}".encode()).digest()
        return _seeded(int.from_bytes(digest[:7], "big"))


class _seeded:  # noqa: N801 (used like a function)
    """Inside, torch's randomness comes from this seed alone; outside it is as it was."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._fork = torch.random.fork_rng(devices=[])

    def __enter__(self) -> torch.Generator:
        self._fork.__enter__()
        torch.manual_seed(self._seed)
        return torch.Generator().manual_seed(self._seed)

    def __exit__(self, *exception: Any) -> None:
        self._fork.__exit__(*exception)


def _optimizer(parameters: list[torch.nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    rate, decay = plan.learning_rate, plan.weight_decay
    if plan.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, weight_decay=decay)
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, weight_decay=decay)
    return torch.optim.SGD(parameters, rate, momentum=plan.momentum, weight_decay=decay)
