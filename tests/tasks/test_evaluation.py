from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedmq.schemas.errors import ConfigError
from fedmq.tasks.contract import Task
from fedmq.tasks.evaluation import evaluate
from fedmq.tasks.metrics import checked

torch.set_num_threads(1)


def task(**functions: Any) -> Task:
    return Task(Path("task.py"), "v1", **functions)


def test_without_functions_of_its_own_a_classification_has_cross_entropy_and_accuracy() -> None:
    # Logits (0, 0): the loss is log 2 whatever the class, and argmax takes class 0.
    model = nn.Linear(1, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    metrics, samples = evaluate(task(), model, (torch.ones(4, 1), torch.tensor([0, 0, 0, 1])))
    assert metrics == pytest.approx({"loss": math.log(2), "accuracy": 0.75})
    assert samples == 4


def test_a_regression_has_no_accuracy() -> None:
    metrics, _ = evaluate(
        task(loss=nn.functional.mse_loss), nn.Identity(), (torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    )
    assert metrics == {"loss": 4.0}


def test_a_regression_whose_targets_have_no_column_has_no_accuracy_either() -> None:
    def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(outputs[:, 0], targets)

    metrics, _ = evaluate(task(loss=squared), nn.Identity(), (torch.tensor([[3.0]]), torch.tensor([1.0])))
    assert metrics == {"loss": 4.0}


def test_a_mean_over_several_batches_weighs_every_sample_alike() -> None:
    # 257 samples are batches of 256 and 1; the last one alone is wrong by 1.
    inputs = torch.zeros(257, 1)
    inputs[-1] = 1.0
    metrics, samples = evaluate(task(loss=nn.functional.mse_loss), nn.Identity(), (inputs, torch.zeros(257, 1)))
    assert metrics["loss"] == pytest.approx(1 / 257)
    assert samples == 257


def test_accuracy_of_a_sequence_is_over_its_steps() -> None:
    outputs = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])  # [1 sample, 2 classes, 2 steps]: classes 1 and 0
    metrics, samples = evaluate(task(), nn.Identity(), (outputs, torch.tensor([[1, 1]])))
    assert metrics["accuracy"] == 0.5
    assert samples == 1


@pytest.mark.parametrize("mode", [True, False])
def test_the_models_mode_is_kept_also_when_it_fails(mode: bool) -> None:
    model = nn.Dropout(0.9).train(mode)
    data = (torch.ones(3, 1), torch.ones(3, 1))
    evaluate(task(evaluate=lambda model, data: {"training": model.training}), model, data)
    assert model.training is mode
    with pytest.raises(ZeroDivisionError):
        evaluate(task(evaluate=lambda model, data: 1 / 0), model, data)
    assert model.training is mode


def test_the_tasks_own_evaluate_gets_its_own_data_without_gradients_in_evaluation_mode() -> None:
    data = (torch.ones(3, 1), torch.ones(3, 1))

    def own(model: nn.Module, heard: Any) -> dict[str, float]:
        assert heard is data
        return {"training": float(model.training), "gradients": float(torch.is_grad_enabled())}

    assert evaluate(task(evaluate=own), nn.Dropout(), data)[0] == {"training": 0.0, "gradients": 0.0}


def test_what_evaluate_returns_must_be_metrics() -> None:
    with pytest.raises(ConfigError, match=r"task task\.py: what evaluate\(\) returned: a float, expected a dict"):
        evaluate(task(evaluate=lambda model, data: 0.9), nn.Identity(), (torch.ones(1), torch.ones(1)))


def test_metrics_are_plain_finite_floats_with_short_names_and_not_too_many() -> None:
    assert checked({"loss": torch.tensor(0.5), 7: True}, "x") == {"loss": 0.5, "7": 1.0}
    assert checked({"loss": math.nan, "worse": -math.inf, "fine": 1}, "x") == {"fine": 1.0}
    assert list(checked({"n" * 100: 1}, "x")) == ["n" * 64]
    assert len(checked({str(number): number for number in range(100)}, "x")) == 32


@pytest.mark.parametrize("targets", [torch.ones(4, 1), torch.tensor([0, 0, 0, 0])])
def test_a_single_output_without_a_loss_is_an_error_and_not_a_loss_of_zero(targets: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"the default loss is cross-entropy.* for a regression define loss"):
        evaluate(task(), nn.Linear(1, 1), (torch.ones(4, 1), targets))
