"""Brokers for tests, started once; every test has topics of its own on them."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmq.broker_config.child import start_child
from fedmq.broker_config.mosquitto import find_mosquitto
from fedmq.broker_config.start import RunningBroker, start_broker
from tests.brokers import RunMosquitto
from tests.system.processes import PATIENCE, TASK, until


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command that a test runs in this process sends FedMQ's logs elsewhere than the next test looks for them."""
    logger = logging.getLogger("fedmq")
    handlers, propagate, level = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


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


@pytest.fixture
def run_mosquitto(mosquitto_installed: None, tmp_path: Path) -> Iterator[RunMosquitto]:
    """Starts a Mosquitto with these lines in its configuration; returns its url."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(*lines: str) -> str:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        configuration = tmp_path / "mosquitto.conf"
        user = ["user root"] if os.geteuid() == 0 else []
        configuration.write_text("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *user, *lines, ""]))
        binary = find_mosquitto()
        assert binary is not None
        processes.append(start_child([binary, "-c", str(configuration)], tmp_path / "mosquitto.log"))

        def answers() -> bool:
            assert processes[-1].poll() is None, (tmp_path / "mosquitto.log").read_text()
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        until(answers, "mosquitto")
        return f"mqtt://127.0.0.1:{port}"

    yield run
    for process in processes:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def beside_a_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The test works in a folder of its own, with a small `task.py` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))  # a task's folder comes first on it
    Path("task.py").write_text(TASK)
