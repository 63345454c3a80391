"""A provisioned federation at work: the broker, the aggregator and devices as processes, each with its own bundle."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedmq.aggregator.export import read_run
from fedmq.settings import load_settings
from fedmq.watch import Watch
from tests.security.ground import free_port
from tests.system.processes import PATIENCE, TASK, Program, until

pytestmark = pytest.mark.broker

QUICK = ("plan.retrain_after=0.3", "aggregator.publish_interval=0.1", "aggregator.buffer_size=1", "device.pace=0.1")


class Secure:
    """A provisioned folder, and what runs with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "secure"
        self.programs: list[Program] = []
        (folder / "task.py").write_text(TASK)
        (folder / "ids.txt").write_text("dev-1\ndev-2\n")
        save_file({"w": np.zeros(4, np.float32)}, folder / "weights.safetensors")

    def start(self, name: str, *arguments: str) -> Program:
        environment = {"OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(self.folder / "state")}
        log = self.folder / f"{name}-{len(self.programs)}.log"
        self.programs.append(Program(name, ["-m", "fedmq", *arguments], log, environment))
        return self.programs[-1]

    def provision(self, *arguments: str) -> str:
        program = self.start("provision", "provision", "--out", str(self.root), *arguments)
        assert program.ends() == 0, program.log
        return program.log

    def aggregator(self) -> Program:
        settings = [*QUICK, f"aggregator.init={self.folder}/weights.safetensors"]
        return self._run("aggregator", "aggregator", settings)

    def client(self, client_id: str, *options: str) -> Program:
        return self._run(client_id, f"devices/{client_id}", QUICK, *options)

    def _run(self, name: str, bundle: str, settings: Sequence[str], *options: str) -> Program:
        command = "aggregator" if name == "aggregator" else "client"
        overrides = [f"--set={setting}" for setting in settings]
        return self.start(name, command, "--config", f"{self.root}/{bundle}/federation.toml", *options, *overrides)


@pytest.fixture
def secure(mosquitto_installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secure]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = Secure(tmp_path)
    yield made
    for program in made.programs:
        program.terminate()
        program.ends()


@pytest.fixture
def at_work(secure: Secure) -> Iterator[tuple[Secure, Watch]]:
    """The broker, the aggregator, dev-1 and dev-2; and the operator's eye on them."""
    listen = ("--port", str(free_port()), "--listen", "127.0.0.1")
    task = ("--task", str(secure.folder / "task.py"))
    secure.provision("--federation", "f", "--clients", str(secure.folder / "ids.txt"), *listen, *task)
    broker = secure.start("broker", "broker", "--secure", str(secure.root))
    broker.says("mosquitto at mqtts://localhost:")  # the name that its certificate has
    secure.aggregator()
    for client_id in ("dev-1", "dev-2"):
        secure.client(client_id)
    with Watch(load_settings(secure.root / "operator" / "federation.toml", environment={}), "eye") as watch:
        yield secure, watch


def watched(watch: Watch, condition: Callable[[], object], what: str, secure: Secure) -> None:
    """Wait for something that the topics tell."""

    def seen() -> bool:
        watch.poll(0.05)
        return bool(condition())

    try:
        until(seen, what)
    except AssertionError:
        logs = "".join(f"\n--- {program.name}\n{program.log[-1500:]}" for program in secure.programs)
        raise AssertionError(f"waited {PATIENCE:g} s for {what}; seen: {watch.describe()}{logs}") from None


def accepted(watch: Watch, client_id: str) -> int:
    status = watch.clients.get(client_id)
    return status.accepted if status else 0


def test_devices_with_their_bundles_train_a_model_and_one_is_revoked_meanwhile(
    at_work: tuple[Secure, Watch],
) -> None:
    secure, watch = at_work
    aggregator, first, second = secure.programs[-3:]
    both = ("dev-1", "dev-2")
    watched(watch, lambda: all(accepted(watch, each) >= 2 for each in both), "updates of both", secure)

    said = secure.provision("--revoke", "dev-2")
    assert "what dev-2 left on the broker is removed" in said
    goal = accepted(watch, "dev-1") + 3
    watched(watch, lambda: accepted(watch, "dev-1") >= goal, "dev-1 to go on", secure)
    assert aggregator.running
    assert first.running
    second.says("ask its operator for a new bundle")
    assert (secure.root / "aggregator" / "revoked").read_text() == "dev-2\n"
    with Watch(load_settings(secure.root / "operator" / "federation.toml", environment={}), "eye") as later:
        watched(later, lambda: later.clients.get("dev-1"), "dev-1's status", secure)
        assert "dev-2" not in later.clients

    # Certificates are renewed, and a device is added, while all goes on.
    secure.provision("--renew", "--all", "--add", "dev-3")
    secure.client("dev-3")
    with Watch(load_settings(secure.root / "operator" / "federation.toml", environment={}), "eye") as later:
        goal = accepted(watch, "dev-1") + 2
        watched(later, lambda: accepted(later, "dev-1") >= goal and accepted(later, "dev-3") >= 1, "both", secure)
    aggregator.terminate()
    assert aggregator.ends() == 0
    # The task adds 1 to every weight, and each update is a version.
    assert read_run(secure.root / "aggregator" / "runs" / "f").version >= 8


def test_of_two_processes_with_one_account_exactly_one_goes(
    at_work: tuple[Secure, Watch],
) -> None:
    secure, watch = at_work
    first = secure.programs[-2]
    watched(watch, lambda: accepted(watch, "dev-1") >= 1, "an update of dev-1", secure)
    environment = {"OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(secure.folder / "another disk")}
    config = [
        "--config",
        f"{secure.root}/devices/dev-1/federation.toml",
        "--client-id",
        "dev-1",
        "--set=device.pace=0.1",
    ]
    second = Program("dev-1 again", ["-m", "fedmq", "client", *config], secure.folder / "again.log", environment)
    secure.programs.append(second)
    until(lambda: not (first.running and second.running), "one of the two to stop", 2 * PATIENCE)
    gone, stays = (first, second) if not first.running else (second, first)
    assert gone.ends() == 1
    assert "dev-1" in gone.log
    count = accepted(watch, "dev-2")
    watched(watch, lambda: accepted(watch, "dev-2") >= count + 2, "dev-2 to go on", secure)
    assert stays.running


def test_fedmq_check_finds_every_right_of_a_device(at_work: tuple[Secure, Watch]) -> None:
    secure, watch = at_work
    watched(watch, lambda: accepted(watch, "dev-2") >= 1, "an update of dev-2", secure)
    config = str(secure.root / "devices" / "dev-2" / "federation.toml")
    task = str(secure.folder / "task.py")
    options = ("--client-id", "dev-2", "--config", config)
    check = secure.start("check", "check", task, *options)
    assert check.ends() == 0, check.log
    assert "dev-2 is at work on this machine" in check.log
    device = secure.programs[-2]
    assert device.name == "dev-2"
    device.terminate()
    assert device.ends() == 0
    check = secure.start("check", "check", task, *options)
    assert check.ends() == 0, check.log
    assert "logged in" in check.log
    assert "the broker's limit: 131,072 bytes" in check.log
    other = secure.start("check", "check", task, "--set=device.client_id=dev-3", "--config", config)
    assert other.ends() == 1
    assert "is 'dev-3' the id that this login is for" in other.log
    assert "fedmq/f/update/dev-3                     refused: " in other.log
    assert "fedmq/f/status/dev-3                     refused: " in other.log
    (aggregator,) = [program for program in secure.programs if program.name == "aggregator"]
    assert not any(word in aggregator.log for word in ("ERROR", "malformed", "reason=signature"))


def test_a_device_under_an_id_that_is_not_its_logins_says_once_what_to_do(at_work: tuple[Secure, Watch]) -> None:
    secure, watch = at_work
    watched(watch, lambda: accepted(watch, "dev-1") >= 1, "an update of dev-1", secure)
    bundle = str(secure.root / "devices" / "dev-2" / "federation.toml")
    given = secure.start("given", "client", "--config", bundle, "--client-id", "dev-1")
    assert given.ends() == 2
    assert "are for 'dev-2' (device.client_id)" in given.log
    secure.programs[-2].terminate()  # dev-2 itself, whose connection it would take
    # As with a bundle from before, whose file has no id.
    other = secure.client("dev-2", "--set=device.client_id=dev-9", "--log-level=debug")
    other.says("ERROR", 2)
    other.says("trained client=dev-9 version", 2)
    other.terminate()
    assert other.ends() == 0
    errors = [line for line in other.log.splitlines() if "ERROR" in line]
    assert len(errors) == 2, other.log
    assert all("use the id of the bundle, or ask the operator for a new one" in line for line in errors)


def test_a_configuration_without_an_own_folder_is_found_by_its_broker_folder(secure: Secure, tmp_path: Path) -> None:
    """The broker's folder is all that the broker's machine needs."""
    listen = ("--port", str(free_port()), "--listen", "127.0.0.1")
    secure.provision("--federation", "f", "--clients", str(secure.folder / "ids.txt"), *listen)
    os.rename(secure.root / "broker", tmp_path / "elsewhere")
    broker = secure.start("broker", "broker", "--secure", str(tmp_path / "elsewhere"))
    broker.says("mosquitto at mqtts://127.0.0.1:")
    broker.terminate()
    assert broker.ends() == 0


def test_who_starts_again_does_not_complain_of_what_it_left_itself(at_work: tuple[Secure, Watch]) -> None:
    secure, watch = at_work
    both = ("dev-1", "dev-2")
    watched(watch, lambda: all(accepted(watch, each) >= 1 for each in both), "updates of both", secure)
    for program in (secure.programs[-2], secure.programs[-3]):
        program.terminate()
        assert program.ends() == 0
    again = [secure.aggregator(), secure.client("dev-1")]
    again[1].says("accepted client=dev-1", 2)
    assert [line for program in again for line in program.log.splitlines() if "ERROR" in line] == []
    with Watch(load_settings(secure.root / "operator" / "federation.toml", environment={}), "eye") as later:
        watched(later, lambda: later.progress, "the progress", secure)
        assert later.progress is not None
        assert "signature" not in later.progress.rejected


def test_keys_change_while_all_work_and_everything_heard_is_signed(at_work: tuple[Secure, Watch]) -> None:
    secure, watch = at_work
    aggregator = secure.programs[-3]
    both = ("dev-1", "dev-2")
    watched(watch, lambda: all(accepted(watch, each) >= 1 for each in both), "updates of both", secure)
    bundles = [secure.root / name for name in ("aggregator", "devices/dev-1")]
    before = [(bundle / "signing.pem").read_bytes() for bundle in bundles]
    secure.provision("--renew", "aggregator", "dev-1")
    assert all((bundle / "signing.pem").read_bytes() != old for bundle, old in zip(bundles, before, strict=True))
    goals = {each: accepted(watch, each) + 5 for each in both}
    watched(watch, lambda: all(accepted(watch, each) >= goals[each] for each in both), "more of both", secure)
    assert "keys read again" in aggregator.log
    assert all(program.running for program in secure.programs[-4:-1])
    assert watch.refused == 0
    assert watch.progress is not None
    assert "signature" not in watch.progress.rejected


def test_the_run_of_a_stolen_aggregator_goes_on_with_new_keys_and_none_takes_its_place(
    at_work: tuple[Secure, Watch],
) -> None:
    secure, watch = at_work
    both, bundle, aside = ("dev-1", "dev-2"), secure.root / "aggregator", secure.folder / "aside"
    watched(watch, lambda: all(accepted(watch, each) >= 1 for each in both), "updates of both", secure)
    secure.programs[-3].terminate()
    assert secure.programs[-3].ends() == 0
    run = read_run(bundle / "runs" / "f").run

    # By mistake, the run goes with the keys.
    shutil.move(bundle, aside)
    secure.provision("--renew", "aggregator")
    secure.provision("--renew", "aggregator")
    for _ in range(2):  # it leaves a version 0 in its folder, which is still new the second time
        new = secure.aggregator()
        assert new.ends() == 2
        assert "this folder holds a new run, and the broker shows on fedmq/f/" in new.log
        assert "or put this new run in its place with --replace" in new.log
        assert "connected run=" not in new.log

    shutil.rmtree(bundle / "runs")
    shutil.move(aside / "runs", bundle / "runs")
    secure.aggregator().says(f"connected run={run}")
    goals = {each: accepted(watch, each) + 3 for each in both}
    watched(watch, lambda: all(accepted(watch, each) >= goals[each] for each in both), "more of both", secure)
    assert watch.progress is not None
    assert watch.progress.run == run
    assert "wrong_run" not in watch.progress.rejected


def test_the_keys_of_a_stolen_aggregator_alone_are_taken_away(at_work: tuple[Secure, Watch]) -> None:
    """As the page on security says."""
    secure, watch = at_work
    bundle = secure.root / "aggregator"
    watched(watch, lambda: accepted(watch, "dev-1") >= 1, "an update", secure)
    secure.programs[-3].terminate()
    assert secure.programs[-3].ends() == 0
    run = read_run(bundle / "runs" / "f").run
    stolen = {name: (bundle / name).read_bytes() for name in ("password", "signing.pem", "identity.pem")}
    for name in stolen:
        (bundle / name).unlink()
    secure.provision("--renew", "aggregator")
    secure.provision("--renew", "aggregator")
    assert all((bundle / name).read_bytes() != content for name, content in stolen.items())
    secure.aggregator().says(f"connected run={run}")
    goal = accepted(watch, "dev-1") + 2
    watched(watch, lambda: accepted(watch, "dev-1") >= goal, "more of it", secure)
