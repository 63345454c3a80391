from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedmq.edge_client.training import NumpyTrainer
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import Evaluation, Offer
from fedmq.schemas.plan import Plan
from fedmq.tasks.contract import Arrays, Trained
from tests.edge_client.words import offer

LAYOUT = Layout((Entry("w", (2, 2)), Entry("b", ()), Entry("mean", (2,), kind="statistic")))
WEIGHTS = np.arange(7, dtype=np.float32)


def zeros(*shape: int) -> npt.NDArray[np.float32]:
    return np.zeros(shape, np.float32)


def plus_one(weights: Arrays, plan: Plan) -> Trained:
    return Trained({name: array + 1 for name, array in weights.items()}, num_samples=3)


def test_a_function_gets_arrays_by_name_and_its_answer_becomes_an_update() -> None:
    shapes: dict[str, Any] = {}

    def function(weights: Arrays, plan: Plan) -> Trained:
        shapes.update({name: (array.shape, array.dtype) for name, array in weights.items()})
        return plus_one(weights, plan)

    outcome = NumpyTrainer(function, "v1").train(WEIGHTS, LAYOUT, Plan())
    assert shapes == {"w": ((2, 2), np.float32), "b": ((), np.float32), "mean": ((2,), np.float32)}
    np.testing.assert_array_equal(outcome.update, [1, 1, 1, 1, 1, 6, 7])  # deltas, then trained statistics
    assert outcome.num_samples == 3
    assert outcome.local is None


def test_the_function_may_change_what_it_gets() -> None:
    def in_place(weights: Arrays, plan: Plan) -> Trained:
        for array in weights.values():
            array += 1
        return Trained(weights, num_samples=1)

    received = WEIGHTS.copy()
    received.setflags(write=False)
    outcome = NumpyTrainer(in_place, "v1").train(received, LAYOUT, Plan())
    np.testing.assert_array_equal(outcome.update, [1, 1, 1, 1, 1, 6, 7])


def test_arrays_that_are_changed_in_place_are_not_copied_and_those_that_change_places_are() -> None:
    layout, given = Layout((Entry("a", (2,)), Entry("b", (2,)))), dict[str, Any]()

    def function(weights: Arrays, plan: Plan) -> Trained:
        given.update(weights)
        weights["a"][:] += 1
        returned = {"a": weights["b"], "b": weights["a"]} if swap else weights
        return Trained(returned, num_samples=1)

    swap = False
    base = np.array([1, 2, 30, 40], np.float32)
    outcome = NumpyTrainer(function, "v1").train(base, layout, Plan())
    assert outcome.update.tolist() == [1, 1, 0, 0]
    assert np.shares_memory(outcome.update, given["a"])
    swap = True
    outcome = NumpyTrainer(function, "v1").train(base, layout, Plan())
    assert outcome.update.tolist() == [29, 38, -28, -37]


def test_numbers_of_numpy_are_numbers_and_what_is_not_finite_is_left_out() -> None:
    def function(weights: Arrays, plan: Plan) -> Trained:
        return Trained(
            weights,
            num_samples=np.int64(5),  # type: ignore[arg-type]
            metrics={"loss": np.float32(0.5), "nan": float("nan")},  # type: ignore[dict-item]
            test_metrics={"accuracy": np.float32(0.25)},  # type: ignore[dict-item]
            num_test_samples=np.int64(8),  # type: ignore[arg-type]
        )

    outcome = NumpyTrainer(function, "v1").train(WEIGHTS, LAYOUT, Plan())
    assert outcome.metrics == {"loss": 0.5}
    assert outcome.evaluation == Evaluation(num_samples=8, metrics={"accuracy": 0.25})
    made = offer(0).model_copy(update={"num_samples": outcome.num_samples, "metrics": outcome.metrics})
    assert Offer.model_validate(made.model_dump()).num_samples == 5, "fit for the wire"


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (None, "the training function returned a NoneType, expected fedmq.Trained"),
        (Trained({"w": zeros(2, 2), "b": zeros()}, 1), "entry 'mean': missing"),
        (
            Trained({"w": zeros(4), "b": zeros(), "mean": zeros(2)}, 1),
            r"entry 'w': shape \[4\], expected \[2, 2\]",
        ),
        (
            Trained({"w": zeros(2, 2), "b": zeros(), "mean": zeros(2), "c": zeros(1)}, 1),
            "entry 'c': not in the layout",
        ),
        (
            Trained({"w": zeros(2, 2), "b": zeros(), "mean": zeros(2)}, 0),
            "num_samples = 0, expected at least 1",
        ),
        (
            Trained({"w": zeros(2, 2) + np.float32(np.nan), "b": zeros(), "mean": zeros(2)}, 1),
            "the training diverged",
        ),
        (
            Trained({"w": zeros(2, 2), "b": zeros(), "mean": zeros(2)}, 1, metrics={"loss": "low"}),  # type: ignore[dict-item]
            "the training function's metrics: a metric that is not a number",
        ),
    ],
)
def test_what_does_not_fit_is_named(returned: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        NumpyTrainer(lambda weights, plan: returned, "v1").train(WEIGHTS, LAYOUT, Plan())


def test_it_takes_the_announced_layout_and_refuses_to_keep_parameters_to_itself() -> None:
    trainer = NumpyTrainer(plus_one, "v1")
    assert trainer.layout(Plan()) is None
    with pytest.raises(ConfigError, match="local_parameters"):
        trainer.layout(Plan(local_parameters=("head.*",)))


def test_a_client_without_torch_never_imports_it() -> None:
    script = """
import sys
import numpy as np
from fedmq.edge_client import core, outbox, runner, service
from fedmq.edge_client.training import NumpyTrainer
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.plan import Plan
from fedmq import Trained
layout = Layout((Entry("w", (2,)),))
trainer = NumpyTrainer(lambda weights, plan: Trained(weights, 1, {"loss": 1.0}), "v1")
trainer.train(np.zeros(2, np.float32), layout, Plan())
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
