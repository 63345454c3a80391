from __future__ import annotations

import re

import pytest

from tests.system.processes import Federation

pytestmark = pytest.mark.broker

MEASURES = """
from fedmq import Trained

def train_numpy(weights, plan):
    return Trained({{name: array + 1 for name, array in weights.items()}}, num_samples=10,
                   test_metrics={{"accuracy": {accuracy}, "seen": float(weights["w"][0])}}, num_test_samples={samples})
"""

HAS_TEST_DATA = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(4))

def build_model():
    return Model()

def load_data(client_id):
    raise AssertionError("the aggregator has no device's data")

def load_test_data():
    return torch.ones(3, 1), torch.ones(3)

def evaluate(model, data):
    return {"height": float(model.w.mean()), "samples": len(data[0])}
"""


def test_the_progress_has_the_devices_means_weighted_by_their_test_samples(fed: Federation) -> None:
    fed.aggregator()
    fed.client("ada", fed.task("ada.py", MEASURES.format(accuracy=0.2, samples=10)))
    fed.client("bob", fed.task("bob.py", MEASURES.format(accuracy=0.8, samples=30)))
    fed.until(
        lambda: fed.watch.progress and fed.watch.progress.devices and fed.watch.progress.devices.clients == 2,
        "both devices' evaluations",
    )
    assert fed.watch.progress is not None
    devices = fed.watch.progress.devices
    assert devices is not None
    assert devices.num_samples == 40
    assert devices.mean["accuracy"] == pytest.approx(0.65)  # (0.2 * 10 + 0.8 * 30) / 40
    assert devices.spread["accuracy"] == pytest.approx(0.6 * (0.25 * 0.75) ** 0.5)
    assert fed.status("ada").metrics["accuracy"] == 0.2
    fed.until(lambda: any(record["devices"] for record in fed.read_run().history), "the history to have them too")


def test_a_target_that_devices_reach_ends_the_run(fed: Federation) -> None:
    fed.set(aggregator__goal__metric="seen", aggregator__goal__target=3)
    aggregator = fed.aggregator()
    client = fed.client("ada", fed.task("ada.py", MEASURES.format(accuracy=0.5, samples=10)))
    assert [aggregator.ends(), client.ends()] == [0, 0]
    (reached,) = re.findall(r"finished: seen (\d+\.\d+)", aggregator.log)
    measured = [record["devices"]["mean"]["seen"] for record in fed.read_run().history if record["devices"]]
    assert max(measured) == pytest.approx(float(reached), abs=1e-4)
    assert [seen for seen in measured if seen >= 3] == [max(measured)]
    again = fed.aggregator()
    assert again.ends() == 0
    assert f"the run has reached its goal (seen {reached}) and ends again" in again.log


def test_a_target_on_the_aggregators_own_test_data_ends_the_run(fed: Federation) -> None:
    fed.set(aggregator__goal__metric="height", aggregator__goal__target=3, aggregator__goal__source="aggregator")
    aggregator = fed.aggregator(fed.task("tested.py", HAS_TEST_DATA))
    aggregator.says("fedmq.aggregator connected")
    client = fed.client("ada")
    assert [aggregator.ends(), client.ends()] == [0, 0]
    fed.until(lambda: fed.watch.progress and fed.watch.progress.state == "finished", "the last progress")
    progress = fed.watch.progress
    assert progress is not None
    assert progress.aggregator is not None
    assert progress.aggregator["height"] >= 3
    assert progress.aggregator["samples"] == 3
    measured = {r["version"]: r["aggregator"]["height"] for r in fed.read_run().history if r["aggregator"]}
    assert measured[progress.aggregator_version] == progress.aggregator["height"]
    again = fed.aggregator(fed.task("tested.py", HAS_TEST_DATA))
    assert again.ends() == 0
    assert "the run has reached its goal (height " in again.log
