"""A model that loses bits on its way down: deltas refer to what devices decode, so no version drifts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmq.aggregator.strategies import fedasync, fedasync_delta, fedbuff
from fedmq.aggregator.strategies.strategy import Strategy
from fedmq.sandbox import Sandbox
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.plan import Plan

torch.set_num_threads(1)

CHANGES_NOTHING = """
import torch
from fedmq import Data

def build_model():
    return torch.nn.Linear(300, 1)

def load_data(client_id):
    return Data(train=(torch.zeros(4, 300), torch.zeros(4, 1)))

loss = torch.nn.functional.mse_loss

def train(model, data, plan):
    pass
"""

Start = Callable[..., Sandbox]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setattr(sys, "path", [*sys.path])

    def started(strategy: Strategy, snapshot_codec: str, **plan: Any) -> Sandbox:
        (tmp_path / "task.py").write_text(CHANGES_NOTHING)
        return Sandbox(
            tmp_path / "task.py",
            ["alice", "bob"],
            plan=Plan(continuous=True, **plan),
            strategy=strategy,
            snapshot_codec=snapshot_codec,
        )

    return started


@pytest.mark.parametrize("up", ["float32", "int8", "eden2"])
@pytest.mark.parametrize("down", ["float16", "int8", "eden4", "eden1"])
@pytest.mark.parametrize("strategy", [fedbuff, fedasync_delta])
def test_training_that_changes_nothing_moves_no_weight(
    start: Start, strategy: Callable[[], Strategy], down: str, up: str
) -> None:
    sandbox = start(strategy(), down, codec=up)
    before = sandbox._core.state.weights.copy()
    sandbox.run(versions=20)
    assert sandbox._core.state.weights.tobytes() == before.tobytes()


@pytest.mark.parametrize("down", ["float16", "int8", "eden4"])
def test_a_strategy_that_mixes_goes_to_what_devices_hold_and_no_further(start: Start, down: str) -> None:
    """y is what a device decoded: x goes there, and what comes of it decodes to itself."""
    sandbox = start(fedasync(), down, codec="float32")
    state = sandbox._core.state
    before = state.weights.copy()
    lost = np.abs(codec_named(down).decoded(before, state.layout) - before).max()
    sandbox.run(versions=30)
    assert 0 < np.abs(state.weights - before).max() <= 1.01 * lost


@pytest.mark.parametrize("down", ["float16", "int8", "eden4"])
def test_the_bases_that_an_aggregator_holds_are_the_bits_that_devices_trained_from(
    start: Start, down: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = start(fedasync(), down, codec="float32")
    received: list[bytes] = []
    trainer = sandbox._clients["alice"].trainer
    train = trainer.train

    def watched(weights: Any, layout: Any, plan: Any) -> Any:
        received.append(weights.tobytes())
        return train(weights, layout, plan)

    monkeypatch.setattr(trainer, "train", watched)
    sandbox.run(versions=8)
    held = {base.tobytes() for base in sandbox._core.state.bases.values()}
    assert len(received) >= 4
    assert set(received) <= held
