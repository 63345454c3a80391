"""An evaluation in a thread: whatever the user's code raises there is heard of."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest

from fedmq.aggregator.evaluations import Evaluations
from fedmq.aggregator.evaluator import ThreadEvaluator
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Metrics
from tests.aggregator.small_run import SmallRun


def measures(weights: Vector) -> Metrics:
    return {"sum": float(weights.sum())}


def fails(weights: Vector) -> Metrics:
    raise KeyError(4)


def exits(weights: Vector) -> Metrics:
    sys.exit(3)


@pytest.mark.parametrize(
    ("evaluate", "result"),
    [(measures, "{'sum': 2.0}"), (fails, "KeyError(4)"), (exits, "RuntimeError('it raised SystemExit(3)')")],
    ids=["measures", "fails", "exits"],
)
def test_what_came_of_it_is_there_once(evaluate: Callable[[Vector], Metrics], result: str) -> None:
    done = threading.Event()
    evaluator = ThreadEvaluator(evaluate, done.set)
    evaluator.start(7, np.ones(2, np.float32))
    assert done.wait(20)
    found = evaluator.take()
    assert found is not None
    assert (found[0], repr(found[1])) == (7, result)
    assert evaluator.take() is None


class Never:
    """Begins, and comes to no end."""

    def __init__(self) -> None:
        self.idle = True

    def start(self, version: int, weights: Vector) -> None:
        self.idle = False

    def take(self) -> None:
        return None


def test_a_run_that_is_finished_again_after_a_failure_of_the_disk_waits_for_its_last_evaluation_again() -> None:
    run = SmallRun()
    evaluations = Evaluations(Never())
    assert not evaluations.complete(run.core, 0.0)
    assert evaluations.complete(run.core, 120.0)
    evaluations.start_over()
    assert not evaluations.complete(run.core, 600.0)
    assert evaluations.complete(run.core, 720.0)
