from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedmq.edge_client.trainer import TorchTrainer, train
from fedmq.edge_client.training import Outcome
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.plan import Plan
from fedmq.tasks.bridge import to_vector
from tests.edge_client.small_tasks import line, points, task_of


def vector_of(model: nn.Module, trainer: TorchTrainer, plan: Plan) -> Any:
    layout = trainer.layout(plan)
    assert layout is not None
    return to_vector(model, layout)


def job(trainer: TorchTrainer, plan: Plan, weights: Any = None) -> Outcome:
    layout = trainer.layout(plan)
    if weights is None:
        weights = to_vector(trainer.model, layout)
    return trainer.train(weights, layout, plan)


def small_net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 1))


OPTIMIZERS = [
    ({"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}, torch.optim.SGD),
    ({"optimizer": "adam", "weight_decay": 0.01}, torch.optim.Adam),
    ({"optimizer": "adamw", "weight_decay": 0.01}, torch.optim.AdamW),
]


@pytest.mark.parametrize(("settings", "optimizer_class"), OPTIMIZERS)
def test_the_brought_loop_is_the_loop_that_one_would_write_bit_for_bit(
    settings: dict[str, Any], optimizer_class: Any
) -> None:
    inputs, targets = points(20)
    torch.manual_seed(1)
    ours = small_net()
    theirs = copy.deepcopy(ours)
    ours.eval()  # as an evaluation leaves it; dropout must be on again
    plan = Plan(local_epochs=3, batch_size=8, learning_rate=0.1, **settings)

    torch.manual_seed(2)
    metrics = train(
        ours, TensorDataset(inputs, targets), plan, nn.functional.mse_loss, torch.Generator().manual_seed(3)
    )

    torch.manual_seed(2)  # for dropout
    optimizer = optimizer_class(theirs.parameters(), lr=0.1, **{k: v for k, v in settings.items() if k != "optimizer"})
    loader = DataLoader(TensorDataset(inputs, targets), 8, shuffle=True, generator=torch.Generator().manual_seed(3))
    for _ in range(3):
        losses = []
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(theirs(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert metrics == {"loss": sum(losses) / 3}


def test_the_proximal_term_pulls_back_as_worked_out_by_hand() -> None:
    # One sample x = 1, y = 0, slope w = 1, rate 0.1, rho = 2. Gradient: 2w + rho (w - 1).
    # Step 1: w = 1 - 0.1 * 2 = 0.8. Step 2: w = 0.8 - 0.1 * (1.6 + 2 * (0.8 - 1)) = 0.68.
    model = line(1.0)
    dataset = TensorDataset(torch.ones(1, 1), torch.zeros(1, 1))
    train(model, dataset, Plan(local_steps=2, learning_rate=0.1, proximal=2.0), nn.functional.mse_loss)
    assert [p.item() for p in model.parameters()] == pytest.approx([0.68])


def test_the_update_is_trained_minus_received_and_the_model_in_the_device_starts_from_the_received() -> None:
    # From the received slope 3: gradient 2 * 3 = 6, rate 0.1: 3 - 0.6 = 2.4.
    trainer = TorchTrainer(task_of(line, (torch.ones(1, 1), torch.zeros(1, 1))), "dev")
    outcome = job(trainer, Plan(learning_rate=0.1), np.array([3.0], np.float32))
    np.testing.assert_allclose(outcome.update, [-0.6], rtol=1e-6)
    assert outcome.num_samples == 1
    assert outcome.metrics == {"loss": 9.0}
    assert outcome.evaluation is None
    assert outcome.update.dtype == np.float32


def test_received_weights_that_cannot_be_written_to_are_left_alone() -> None:
    trainer = TorchTrainer(task_of(line, (torch.ones(1, 1), torch.zeros(1, 1))), "dev")
    received = np.array([3.0], np.float32)
    received.setflags(write=False)
    job(trainer, Plan(), received)
    assert received[0] == 3.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_narrow_model_s_update_is_what_training_did_not_what_rounding_did(dtype: torch.dtype) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)).to(dtype)

    def train_some(step: float) -> Any:
        def some(model: nn.Module, data: Any, plan: Plan) -> None:
            with torch.no_grad():
                model[0].bias.add_(step)  # type: ignore[index]

        trainer = TorchTrainer(task_of(build, points(8, 4), train=some), "dev")
        layout = trainer.layout(Plan())
        received = np.full(layout.size, 1.0003, np.float32)  # neither type has it: both have 1, and 1 + 2 ** -7
        outcome = job(trainer, Plan(), received)
        assert (received == np.float32(1.0003)).all()
        assert (outcome.update[layout.parameter_size :] == 1).all(), "statistics travel as they are"
        return layout.views(outcome.update)["0.bias"], outcome.update[: layout.parameter_size]

    bias, all_of_it = train_some(0.0)
    assert not all_of_it.any()
    bias, all_of_it = train_some(2**-7)
    assert bias.tolist() == [2**-7, 2**-7]
    assert np.count_nonzero(all_of_it) == 2


def test_of_ten_narrow_models_one_that_goes_a_step_each_time_moves_their_mean_by_a_tenth_of_it() -> None:
    def step(model: nn.Module, data: Any, plan: Plan) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(2**-7)

    ways = [step, *[lambda model, data, plan: None] * 9]
    trainers = [
        TorchTrainer(task_of(lambda: line().to(torch.bfloat16), points(8, 1), train=way), "dev") for way in ways
    ]
    weights = np.ones(1, np.float32)
    for _ in range(50):
        mean = np.mean([job(trainer, Plan(), weights).update for trainer in trainers], axis=0)
        weights = np.add(weights, mean, dtype=np.float32)
    np.testing.assert_allclose(weights, 1 + 50 * 2**-7 / 10, rtol=1e-5)


def test_local_steps_count_steps_across_passes() -> None:
    seen: list[int] = []

    def counting(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(targets))
        return nn.functional.mse_loss(outputs, targets)

    dataset = TensorDataset(*points(20))
    train(nn.Linear(3, 1), dataset, Plan(local_steps=5, local_epochs=50, batch_size=8), counting)
    assert seen == [8, 8, 4, 8, 8]


@pytest.mark.parametrize(
    ("samples", "batch_size", "expected"),
    [(9, 4, [4, 4]), (9, 1, [1] * 9), (1, 4, [1]), (10, 4, [4, 4, 2])],
    ids=["a lone last one is left out", "batches of one are wanted", "one is all there is", "two are enough"],
)
def test_a_last_batch_of_a_single_sample_is_left_out(samples: int, batch_size: int, expected: list[int]) -> None:
    seen: list[int] = []

    def counting(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(targets))
        return nn.functional.mse_loss(outputs, targets)

    train(nn.Linear(3, 1), TensorDataset(*points(samples)), Plan(batch_size=batch_size), counting)
    assert seen == expected


SHARES = [
    ("max_steps lowers the passes", {"max_steps": 3}, {"local_epochs": 2}, 3),
    ("max_steps lowers the steps", {"max_steps": 3}, {"local_steps": 5}, 3),
    ("max_epochs lowers the passes", {"max_epochs": 1}, {"local_epochs": 3}, 3),
    ("max_epochs lowers the steps", {"max_epochs": 1}, {"local_steps": 5}, 3),
    ("max_steps does not raise", {"max_steps": 100}, {"local_epochs": 2}, 6),
    ("max_epochs does not raise", {"max_epochs": 100}, {"local_epochs": 2}, 6),
    ("max_epochs does not raise the steps", {"max_epochs": 100}, {"local_steps": 5}, 5),
    ("the lower of both holds", {"max_epochs": 1, "max_steps": 2}, {"local_epochs": 2}, 2),
]


@pytest.mark.parametrize(("share", "plan", "steps"), [case[1:] for case in SHARES], ids=[case[0] for case in SHARES])
def test_a_devices_own_share_only_ever_lowers_the_plans(
    share: dict[str, Any], plan: dict[str, Any], steps: int
) -> None:
    seen = 0

    def counting(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += 1
        return nn.functional.mse_loss(outputs, targets)

    trainer = TorchTrainer(task_of(lambda: nn.Linear(3, 1), points(12), loss=counting), "dev", **share)
    job(trainer, Plan(batch_size=4, **plan))
    assert seen == steps


def test_the_users_own_train_is_used_and_gets_the_devices_share() -> None:
    heard: list[Plan] = []

    def own(model: Any, data: Any, plan: Plan) -> dict[str, float]:
        heard.append(plan)
        with torch.no_grad():
            model.weight += 1
        return {"mine": 7, "diverged": float("nan")}

    trainer = TorchTrainer(task_of(line, points(4, 1), train=own), "dev", max_epochs=2)
    outcome = job(trainer, Plan(local_epochs=5))
    assert [plan.local_epochs for plan in heard] == [2]
    np.testing.assert_array_equal(outcome.update, [1.0])
    assert outcome.metrics == {"mine": 7.0}, "what is not finite is left out"


def test_the_users_own_train_may_return_nothing() -> None:
    outcome = job(TorchTrainer(task_of(line, points(4, 1), train=lambda model, data, plan: None), "dev"), Plan())
    assert outcome.metrics == {}


def test_the_received_weights_are_evaluated_before_training() -> None:
    # Slope 3 on x = 1, y = 0: loss 9; after training it would be less.
    task = task_of(line, (torch.ones(1, 1), torch.zeros(1, 1)), (torch.ones(5, 1), torch.zeros(5, 1)))
    outcome = job(TorchTrainer(task, "dev"), Plan(), np.array([3.0], np.float32))
    assert outcome.evaluation is not None
    assert outcome.evaluation.num_samples == 5
    assert outcome.evaluation.metrics == {"loss": 9.0}


def test_the_users_own_evaluate_is_used() -> None:
    def evaluate(model: nn.Module, data: Any) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"slope": next(model.parameters()).item(), "samples": len(data[0])}

    task = task_of(line, points(4, 1), points(6, 1), evaluate=evaluate)
    outcome = job(TorchTrainer(task, "dev"), Plan(), np.array([3.0], np.float32))
    assert outcome.evaluation is not None
    assert outcome.evaluation.metrics == {"slope": 3.0, "samples": 6.0}


def test_statistics_travel_as_trained_values_and_parameters_as_deltas() -> None:
    def normed() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(1, affine=False), nn.Linear(1, 1))

    inputs = torch.tensor([[1.0], [3.0], [5.0], [7.0]])  # mean 4, unbiased variance 20/3
    trainer = TorchTrainer(task_of(normed, (inputs, torch.zeros(4, 1))), "dev")
    plan = Plan(batch_size=4)
    layout = trainer.layout(plan)
    received = to_vector(trainer.model, layout)
    outcome = job(trainer, plan, received)
    statistics = layout.views(outcome.update)
    assert statistics["0.running_mean"] == pytest.approx(0.9 * 0 + 0.1 * 4)
    assert statistics["0.running_var"] == pytest.approx(0.9 * 1 + 0.1 * 20 / 3)
    assert abs(statistics["1.weight"]) < abs(received[0]) + 1, "a delta"
    assert outcome.local is not None
    assert outcome.local["0.num_batches_tracked"] == 1
    again = job(trainer, plan, received).local
    assert again is not None
    assert again["0.num_batches_tracked"] == 2, "counted on, on the device"


def test_what_stays_on_the_device_is_put_back_after_a_restart() -> None:
    plan = Plan(local_parameters=("1.*",))

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))

    task = task_of(build, points(8))
    first = TorchTrainer(task, "dev", seed=0)
    outcome = job(first, plan)
    assert outcome.local is not None
    assert set(outcome.local) == {"1.weight", "1.bias"}
    second = TorchTrainer(task, "dev", seed=1)
    assert not torch.equal(second.model[1].weight, first.model[1].weight)  # type: ignore[index]
    second.restore(outcome.local)
    assert torch.equal(second.model[1].weight, first.model[1].weight)  # type: ignore[index]


def test_a_training_that_diverges_is_an_error_and_leaves_no_nan_on_the_device() -> None:
    plan = Plan(local_parameters=("1.*",), learning_rate=100.0, local_epochs=200)
    trainer = TorchTrainer(task_of(lambda: nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), points(8)), "dev", seed=0)
    weights = vector_of(trainer.model, trainer, plan)
    with pytest.raises(ConfigError, match="diverged"):
        job(trainer, plan, weights)
    outcome = job(trainer, plan.model_copy(update={"learning_rate": 0.01, "local_epochs": 1}), weights)
    assert np.isfinite(outcome.update).all()


@pytest.mark.parametrize(("bad", "found"), [(np.nan, "NaN"), (np.inf, "inf")])
def test_a_loss_that_is_no_number_before_training_is_the_data_s_fault_not_the_learning_rate_s(
    bad: float, found: str
) -> None:
    inputs, targets = points(8)
    trainer = TorchTrainer(task_of(small_net, (inputs, torch.full_like(targets, bad))), "dev-6", seed=0)
    with pytest.raises(ConfigError) as caught:
        job(trainer, Plan())
    assert str(caught.value) == (
        f"the loss is {found} before training: look for NaN or infinities in load_data('dev-6')"
    )


@pytest.mark.parametrize("error", [RuntimeError("the camera is gone"), SystemExit("the camera is gone")])
def test_a_task_that_raises_leaves_no_half_trained_local_parameters(error: BaseException) -> None:
    def broken(model: nn.Module, data: Any, plan: Plan) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        raise error

    plan = Plan(local_parameters=("1.*",))
    task = task_of(lambda: nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), points(8), train=broken)
    trainer = TorchTrainer(task, "dev")
    before = trainer.model[1].weight.detach().clone()  # type: ignore[index]
    with pytest.raises(type(error), match="camera"):
        job(trainer, plan)
    assert torch.equal(trainer.model[1].weight, before)  # type: ignore[index]


def test_with_a_seed_two_devices_shuffle_differently_and_the_same_device_alike_and_torchs_own_luck_is_untouched() -> (
    None
):
    def outcome_of(client_id: str) -> Any:
        trainer = TorchTrainer(task_of(lambda: nn.Linear(3, 1), points(32)), client_id, seed=5)
        return job(trainer, Plan(batch_size=2), np.zeros(4, np.float32)).update

    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, again, other = outcome_of("one"), outcome_of("one"), outcome_of("other")
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_data_that_is_no_data_is_a_clear_error() -> None:
    task = task_of(line, points(4, 1))
    wrong = type(task)(path=task.path, version="v1", build_model=line, load_data=lambda client_id: points(4, 1))  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match=r"load_data returned a tuple, expected fedmq\.Data"):
        TorchTrainer(wrong, "dev")
    with pytest.raises(ConfigError, match="train data of 'dev': it is empty"):
        TorchTrainer(task_of(line, (torch.ones(0, 1), torch.ones(0, 1))), "dev")


@pytest.mark.parametrize("returned", [7, {"loss": "low"}, {"": 1.0}])
def test_metrics_that_are_none_are_a_clear_error(returned: Any) -> None:
    trainer = TorchTrainer(task_of(line, points(4, 1), train=lambda model, data, plan: returned), "dev")
    with pytest.raises(ConfigError, match=r"what train\(\) returned"):
        job(trainer, Plan())
