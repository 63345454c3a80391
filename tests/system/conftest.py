"""Federations of processes: one for each test that ends its parts, and one at work that other tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmq.broker_config.start import RunningBroker
from tests.system.processes import Federation


@pytest.fixture
def fed(
    mosquitto: RunningBroker, federation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Federation]:
    """A federation that nobody has started yet."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # a task that is loaded here puts its folder there
    with Federation(tmp_path, federation, mosquitto.url) as made:
        yield made


FAILING = """
import time
from pathlib import Path

task_version = "1"

def train_numpy(weights, plan):
    with Path(__file__).with_suffix(".attempts").open("a") as attempts:
        print(time.monotonic(), file=attempts)
    raise RuntimeError("the sensor is unplugged")
"""


@pytest.fixture(scope="package")
def shared(mosquitto: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A federation whose aggregator, ada and bob work all the time, and whose carl fails all the time.

    It admits task version 1 only. Carl is here and not in his test because he waits longer and longer.
    """
    folder = tmp_path_factory.mktemp("shared")
    with Federation(folder, f"shared-{os.urandom(6).hex()}", mosquitto.url) as made:
        made.set(aggregator__task_versions=["1"], device__pace=0.3)
        made.aggregator()
        made.client("ada")
        made.client("bob")
        made.client("carl", made.task("failing.py", FAILING))
        made.work("ada", "bob")
        yield made


@pytest.fixture
def at_work(shared: Federation) -> Iterator[Federation]:
    """The shared federation; whatever a test does in it, the others go on."""
    residents = len(shared.programs)
    yield shared
    for guest in shared.programs[residents:]:
        guest.kill()
    del shared.programs[residents:]
    shared.work("ada", "bob")
    assert [program.name for program in shared.programs if not program.running] == []
