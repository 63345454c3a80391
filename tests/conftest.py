"""Brokers for tests, started once; every test has topics of its own on them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fedmq.broker_config.mosquitto import find_mosquitto
from fedmq.broker_config.start import RunningBroker, start_broker


@pytest.fixture(scope="session")
def mosquitto_installed() -> None:
    """Skip where there is no Mosquitto, unless this is CI, which has to have it."""
    if find_mosquitto() is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("no mosquitto binary: in CI every broker is tested")
        pytest.skip("no mosquitto binary on this machine")


@pytest.fixture(scope="session")
def mosquitto(mosquitto_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """Mosquitto, one for all tests."""
    with start_broker("mosquitto", folder=tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """The embedded broker, one for all tests."""
    with start_broker("embedded", folder=tmp_path_factory.mktemp("embedded")) as broker:
        yield broker


@pytest.fixture
def federation() -> str:
    """A name that no other test uses, for topics and client ids."""
    return f"test-{os.urandom(6).hex()}"
