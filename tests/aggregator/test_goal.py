"""When a run is finished."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fedmq.aggregator.goal import Goal
from fedmq.schemas.messages import Metrics


@pytest.mark.parametrize(
    ("goal", "version", "seconds", "devices", "aggregator", "reached"),
    [
        (Goal(), 10**9, 1e9, 0.8, {"accuracy": 1.0}, None),
        (Goal(versions=3), 2, 0, None, None, None),
        (Goal(versions=3), 3, 0, None, None, "3 versions"),
        (Goal(seconds=60), 0, 59.9, None, None, None),
        (Goal(seconds=60), 0, 60.0, None, None, "60 seconds"),
        (Goal(target=0.8), 0, 0, 0.8, None, "accuracy 0.8000"),
        (Goal(target=0.81), 0, 0, 0.8, None, None),
        (Goal(target=0.8), 0, 0, None, {"accuracy": 1.0}, None),
        (Goal(target=0.8, source="aggregator"), 0, 0, 0.8, None, None),
        (Goal(target=0.8, source="aggregator"), 0, 0, None, {"accuracy": 0.9}, "accuracy 0.9000"),
        (Goal(target=0.5, metric="loss", higher_is_better=False), 0, 0, 0.5, None, "loss 0.5000"),
        (Goal(target=0.4, metric="loss", higher_is_better=False), 0, 0, 0.5, None, None),
        (Goal(versions=3, seconds=60), 1, 61, None, None, "60 seconds"),
    ],
)
def test_whatever_of_the_goal_comes_first_ends_the_run(
    goal: Goal,
    version: int,
    seconds: float,
    devices: float | None,
    aggregator: Metrics | None,
    reached: str | None,
) -> None:
    assert goal.reached(version, seconds, devices, aggregator) == reached


@pytest.mark.parametrize(
    ("goal", "sentence"),
    [
        (Goal(), "until stopped"),
        (Goal(versions=100), "100 versions"),
        (Goal(target=0.9, seconds=60), "accuracy >= 0.9 on devices with more than half of the test samples or 60 s"),
        (
            Goal(target=0.1, metric="loss", higher_is_better=False, source="aggregator"),
            "loss <= 0.1 on the aggregator's own data",
        ),
    ],
)
def test_a_goal_is_a_sentence(goal: Goal, sentence: str) -> None:
    assert str(goal) == sentence


@pytest.mark.parametrize("bad", [{"versions": 0}, {"seconds": 0}, {"target": float("nan")}, {"rounds": 3}])
def test_a_goal_that_cannot_be_meant_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Goal(**bad)
