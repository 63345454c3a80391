"""Aggregator and clients as objects in one process, over a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest

import fedmq
from fedmq.aggregator.strategies import Strategy
from fedmq.tasks.contract import Arrays
from tests.system.processes import Federation

pytestmark = pytest.mark.broker


def add_one(weights: Arrays, plan: fedmq.Plan) -> fedmq.Trained:
    return fedmq.Trained({name: array + np.float32(1) for name, array in weights.items()}, num_samples=10)


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: fedmq.fedbuff(buffer_size=2),
        lambda: fedmq.fedasync(alpha=0.5),
        lambda: fedmq.fedasync_delta(alpha=0.5),
        lambda: fedmq.fedavg(clients=2),
    ],
    ids=["fedbuff", "fedasync", "fedasync_delta", "fedavg"],
)
def test_a_federation_runs_in_one_process_with_a_strategy_that_is_a_function(
    fed: Federation, strategy: Callable[[], Strategy]
) -> None:
    fed.set(task=None, aggregator__goal__versions=4, aggregator__buffer_size=None, device__pace=0.02)
    fed.set(device__folder="devices")
    seen: list[fedmq.Version] = []
    with fedmq.Aggregator(fed.file, strategy=strategy()) as aggregator, ExitStack() as stack:
        settings = fedmq.load_settings(fed.file)
        clients = [stack.enter_context(fedmq.EdgeClient(settings, name, train=add_one)) for name in ("ada", "bob")]
        for version in aggregator.versions():
            seen.append(version)
            assert version.version <= aggregator.version
        endings = [client.wait(20) for client in clients]
    assert [version.version for version in seen] == [1, 2, 3, 4]
    assert [ending.code if ending else None for ending in endings] == [0, 0]
    assert all(client.accepted for client in clients)
    assert all(version.updates >= 1 and version.mean_staleness >= 0 for version in seen)
    weights = aggregator.weights()["w"]
    assert weights.shape == (4,)
    assert weights.min() > 0
    history = fed.read_run().history
    assert [(record["version"], len(record["updates"])) for record in history] == [
        (version.version, version.updates) for version in seen
    ]
    if strategy().name == "fedavg":
        # Both clients' updates in every version, all trained on the one before: an average of equal steps is one step.
        assert [sorted(each["client_id"] for each in record["updates"]) for record in history] == [["ada", "bob"]] * 4
        assert weights.tolist() == [4.0] * 4


def test_leaving_the_with_block_stops_it(fed: Federation) -> None:
    fed.set(device__folder="devices", device__pace=30)
    with fedmq.Aggregator(fed.file) as aggregator, fedmq.EdgeClient(fed.file, "ada", train=add_one):
        fed.until(lambda: fed.status("ada").activity == "training", "ada to train")
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert aggregator.version == 0
    fed.until(lambda: fed.status("ada").state == "offline", "her goodbye")
    with fedmq.Aggregator(fed.file) as again:  # the folder is free
        assert again.version == 0


def test_an_error_in_the_thread_is_raised_where_the_object_is_used(fed: Federation) -> None:
    """What is no certificate is found out when the thread connects, and the loop around `versions` learns of it."""
    fed.set(broker__url=fed.settings["broker.url"].replace("mqtt:", "mqtts:"), broker__ca_file="task.py")

    def watch() -> None:
        with fedmq.Aggregator(fed.file) as aggregator:
            for version in aggregator.versions():
                raise AssertionError(version)

    with pytest.raises(fedmq.FedMQError, match=r"task\.py"):
        watch()


def test_a_task_or_a_function_is_needed(fed: Federation) -> None:
    fed.set(task=None)
    with pytest.raises(fedmq.ConfigError, match="a client needs a task"):
        fedmq.EdgeClient(fed.file, "ada")
    with pytest.raises(fedmq.ConfigError, match="'aggregator' is the aggregator's"):
        fedmq.EdgeClient(fed.file, "aggregator", train=add_one)
    with pytest.raises(fedmq.ConfigError, match="client id 'a/b'"):
        fedmq.EdgeClient(fed.file, "a/b", train=add_one)
    fed.set(aggregator__init=None)
    with pytest.raises(fedmq.ConfigError, match="there is no model"):
        fedmq.Aggregator(fed.file)


def test_every_public_name_is_there_and_nothing_else_is() -> None:
    assert {name for name in fedmq.__all__ if getattr(fedmq, name) is None} == set()
    with pytest.raises(AttributeError, match="no attribute 'Sandbags'"):
        getattr(fedmq, "Sandbags")  # noqa: B009 (a name that mypy would not take)
