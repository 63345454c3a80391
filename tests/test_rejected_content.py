"""What is refused for its content stays out, also by way of the error feedback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmq.aggregator.strategies import fedavg
from fedmq.sandbox import Sandbox
from fedmq.schemas.plan import Plan

torch.set_num_threads(1)

TASK = """
import torch
from fedmq import Data

def points(seed):
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5], [1.0], [0.0], [1.0], [-1.0], [2.0]])

def build_model():
    return torch.nn.Linear(8, 1)

def load_data(client_id):
    return Data(train=points(ord(client_id[-1])))

def load_test_data():
    return points(7)

loss = torch.nn.functional.mse_loss
"""


def test_a_device_that_was_too_late_for_long_brings_nothing_of_that_when_it_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "task.py").write_text(TASK)
    plan = Plan(codec="eden4", error_feedback=True, local_epochs=5, learning_rate=0.02)
    sandbox = Sandbox(
        tmp_path / "task.py", ["alice", "bob"], plan=plan, strategy=fedavg(clients=2, deadline=3.0), speeds={"bob": 8.0}
    )
    sandbox.run(seconds=200)
    bob: Any = sandbox._clients["bob"].service
    assert bob.accepted == 0
    assert bob.rejected > 20
    learned = sandbox.evaluate()["loss"]
    bob._runner._seconds = 1.0  # as fast as alice
    while bob.accepted < 5:
        sandbox.run(seconds=1.0)
        assert sandbox.evaluate()["loss"] < 1.5 * learned + 0.01
