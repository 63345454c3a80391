from __future__ import annotations

import time

import pytest

from tests.system.processes import Federation

pytestmark = pytest.mark.broker

SLEEPS = """
import time

task_version = "1"

def train_numpy(weights, plan):
    time.sleep(600)
"""

COMPUTES = """
import numpy as np

task_version = "1"

def train_numpy(weights, plan):
    np.linalg.svd(np.random.default_rng(0).normal(size=(6000, 6000)))  # minutes in one call
"""

COMPUTES_WITH_TORCH = """
import torch
import fedmq

task_version = "1"

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(4))

    def forward(self, inputs):
        return inputs @ self.w

def build_model():
    return Model()

def load_data(client_id):
    return fedmq.Data(train=(torch.zeros(4, 4), torch.zeros(4)))

def train(model, data, plan):
    torch.linalg.svd(torch.randn(6000, 6000))
"""


def test_a_client_that_trains_for_long_ends_at_once_when_it_is_told_to(at_work: Federation) -> None:
    tasks = {"sleeper": SLEEPS, "numerical": COMPUTES, "tensors": COMPUTES_WITH_TORCH}
    clients = [at_work.client(name, at_work.task(f"{name}.py", text)) for name, text in tasks.items()]
    for name in tasks:
        at_work.until(lambda name=name: at_work.status(name).activity == "training", f"{name} to train")  # type: ignore[misc]
    begun = time.monotonic()
    for client in clients:
        client.terminate()
    assert [client.ends() for client in clients] == [0, 0, 0]
    assert time.monotonic() - begun < 5
    for client in clients:
        at_work.until(lambda c=client: at_work.status(c.name).state == "offline", "its status")  # type: ignore[misc]
        assert at_work.status(client.name).activity == "stopped"
        assert at_work.status(client.name).detail == "SIGTERM"


def test_an_aggregator_that_is_told_to_stop_says_so_and_loses_nothing(fed: Federation) -> None:
    aggregator = fed.aggregator()
    client = fed.client("ada")
    fed.work("ada", updates=3)
    begun = time.monotonic()
    aggregator.terminate()
    assert aggregator.ends() == 0
    assert time.monotonic() - begun < 5
    fed.until(lambda: fed.watch.aggregator and fed.watch.aggregator.state == "offline", "its presence")
    assert fed.watch.aggregator is not None
    run = fed.read_run()
    assert fed.watch.aggregator.version == run.version
    assert "Traceback" not in aggregator.log
    assert client.running


EVALUATES_FOR_LONG = (
    COMPUTES_WITH_TORCH
    + """
def load_test_data():
    return torch.zeros(4, 4), torch.zeros(4)

def evaluate(model, data):
    print("evaluating", flush=True)
    torch.linalg.svd(torch.randn(6000, 6000))
"""
)


def test_an_aggregator_that_evaluates_for_long_ends_at_once_when_it_is_told_to(fed: Federation) -> None:
    aggregator = fed.aggregator(fed.task("slow.py", EVALUATES_FOR_LONG))
    aggregator.says("evaluating")
    fed.client("ada")
    fed.work("ada")  # receiving does not wait for it either
    begun = time.monotonic()
    aggregator.terminate()
    assert aggregator.ends() == 0
    assert time.monotonic() - begun < 5
