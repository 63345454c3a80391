from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedmq.broker_config.start import start_broker
from tests.system.processes import Federation, until
from tests.system.test_broker_dies import free_port

pytestmark = pytest.mark.broker


def test_an_aggregator_is_not_taken_in_by_a_broker_that_remembers_one_of_its_predecessors(
    mosquitto_installed: None, federation: str, tmp_path: Path
) -> None:
    """Mosquitto saves every half hour unless told otherwise: a power cut brings back what was retained long ago."""
    port, folder = free_port(), tmp_path / "broker"
    saved, old = folder / "mosquitto.db", tmp_path / "old.db"
    with Federation(tmp_path, federation, f"mqtt://127.0.0.1:{port}") as fed:
        with start_broker("mosquitto", folder=folder, port=port, persistent=True) as broker:
            first = fed.aggregator()
            first.says("fedmq.aggregator connected")
            until(lambda: saved.exists() and b"online" in saved.read_bytes(), "the broker to save")
            shutil.copy(saved, old)
            first.kill()
            second = fed.aggregator()
            second.says("fedmq.aggregator connected")
            second.kill()
            third = fed.aggregator()
            third.says("fedmq.aggregator connected")
            broker.kill()
        shutil.copy(old, saved)
        with start_broker("mosquitto", folder=folder, port=port, persistent=True):
            third.says("fedmq.aggregator connected", times=2)
            fed.client("ada")
            fed.work("ada")
            assert third.running
