from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from fedmq.broker_config.start import start_broker
from tests.system.handmade import HandmadeClient
from tests.system.processes import Federation

pytestmark = pytest.mark.broker


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("persistent", [False, True], ids=["it forgets everything", "it remembers what it saved"])
def test_everyone_waits_for_a_broker_and_goes_on_when_it_comes_back(
    mosquitto_installed: None, federation: str, tmp_path: Path, persistent: bool
) -> None:
    port = free_port()
    folder = tmp_path / "broker"
    with Federation(tmp_path, federation, f"mqtt://127.0.0.1:{port}") as fed:
        programs = [fed.aggregator(), fed.client("ada"), fed.client("bob")]
        for program in programs:
            program.says(f"no broker answers at 127.0.0.1:{port}; is it running?")
        for _ in range(2):
            with start_broker("mosquitto", folder=folder, port=port, persistent=persistent) as broker:
                fed.work("ada", "bob", updates=2)
                run, version = fed.read_run().run, fed.version
                broker.kill()
        with start_broker("mosquitto", folder=folder, port=port, persistent=persistent):
            fed.work("ada", "bob", updates=2)
            fed.goes_on()
            newer = fed.version
            assert newer > version
            for name in ("ada", "bob"):
                fed.until(lambda n=name: (fed.status(n).base_version or 0) >= newer, f"{name} to get new models")  # type: ignore[misc]
        assert fed.read_run().run == run
        assert all(program.running for program in programs)


def test_a_broker_that_forgot_everything_is_told_it_again(
    mosquitto_installed: None, federation: str, tmp_path: Path
) -> None:
    port = free_port()
    with Federation(tmp_path, federation, f"mqtt://127.0.0.1:{port}") as fed:
        aggregator = fed.aggregator()
        for number in (1, 2):
            with start_broker("mosquitto", folder=tmp_path / "broker", port=port):
                aggregator.says("fedmq.aggregator connected", times=number)
                # Nobody makes a version, so that nothing is published because it is new.
                with HandmadeClient(fed, "zoe") as zoe:
                    assert zoe.head.version == 0
                fed.until(lambda: fed.watch.known == 2, "presence and progress")
            fed.watch.aggregator = fed.watch.progress = None
        with start_broker("mosquitto", folder=tmp_path / "broker", port=port):
            fed.client("late")  # which needs the layout too
            fed.work("late")


def test_who_waits_for_a_broker_can_be_told_to_stop(tmp_path: Path, federation: str) -> None:
    with Federation(tmp_path, federation, f"mqtt://127.0.0.1:{free_port()}") as fed:
        programs = [fed.aggregator(), fed.client("ada")]
        for program in programs:
            program.says("no broker answers")
            program.terminate()
        assert [program.ends(5) for program in programs] == [0, 0]


def test_connections_that_die_without_a_word_are_noticed_and_everyone_goes_on(
    mosquitto_installed: None, federation: str, tmp_path: Path
) -> None:
    """The broker is there but does not move: no connection ends, nothing is answered."""
    with (
        start_broker("mosquitto", folder=tmp_path / "broker") as broker,
        Federation(tmp_path, federation, broker.url, broker__keepalive_seconds=5) as fed,
    ):
        programs = [fed.aggregator(), fed.client("ada")]
        fed.work("ada", updates=2)
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            for program in programs:
                program.says("nothing was heard from")
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        fed.work("ada", updates=2)
        fed.goes_on()
        assert all(program.running for program in programs)
