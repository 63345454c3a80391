"""A bundle whose files are missing or broken: a mistake that starting again does not mend, so exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.cli import main
from tests.broker_config.provisioned import content
from tests.system.processes import TASK

DEVICE = "devices/dev-1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A provisioned one, where nothing runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))  # a task's folder comes first on it
    Path("task.py").write_text(TASK)
    save_file({"w": np.zeros(4, np.float32)}, "weights.safetensors")
    changes = {"task": str(tmp_path / "task.py")}
    provision(tmp_path / "secure", Request("f", clients=("dev-1",), changes=changes), datetime.now(UTC))
    return tmp_path / "secure"


def cut(path: Path) -> None:
    """As a copy that was broken off leaves it."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *((name, Path.unlink) for name in ("ca.pem", "identity.pem", "password", "signing.pem", "aggregator-keys")),
        *((name, cut) for name in ("ca.pem", "identity.pem", "signing.pem", "aggregator-keys")),
    ],
)
@pytest.mark.parametrize(("command", "bundle"), [("client", DEVICE), ("aggregator", "aggregator")])
def test_a_file_of_a_bundle_that_cannot_be_used_is_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, bundle: str, name: str, harm: Callable[[Path], None]
) -> None:
    path = folder / bundle / name
    harm(path)
    config = str(folder / bundle / "federation.toml")
    code = main([command, "--config", config, "--set", f"aggregator.init={folder.parent}/weights.safetensors"])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"fedmq {command}: ")]
    assert (code, len(said)) == (2, 1), said
    assert str(path) in said[0]
    assert not (folder / bundle / "runs").exists()
    setting = {"signing.pem": "key_file", "aggregator-keys": "aggregator_keys_file"}.get(name)
    if harm == Path.unlink and setting is not None:
        assert f"signing.{setting}: {path} cannot be read: No such file or directory; it is a file of the" in said[0]


@pytest.mark.parametrize(("bundle", "whose"), [(DEVICE, "device 'dev-1'"), ("operator", "the operator")])
def test_an_aggregator_refuses_a_bundle_that_is_not_its_own_and_leaves_nothing_in_it(
    folder: Path, capsys: pytest.CaptureFixture[str], bundle: str, whose: str
) -> None:
    before = content(folder / bundle)
    assert main(["aggregator", "--config", str(folder / bundle / "federation.toml")]) == 2
    assert capsys.readouterr().err == (
        f"fedmq aggregator: broker.username 'f.{Path(bundle).name}' is the login of {whose}, which an aggregator that"
        " used it would cut off: take the aggregator's own bundle, as in secure/aggregator/federation.toml\n"
    )
    assert content(folder / bundle) == before


def test_a_login_file_that_cannot_be_used_is_exit_code_2_for_who_looks(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "operator" / "ca.pem").unlink()
    assert main(["status", "--config", str(folder / "operator" / "federation.toml")]) == 2
    assert "operator/ca.pem cannot be used: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("login", ["both", "certificate"])
@pytest.mark.parametrize("command", [["client"], ["check", "task.py"]])
def test_the_operators_bundle_is_no_devices_and_that_is_said_before_all_else(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str], login: str
) -> None:
    bundle = folder / "operator" / "federation.toml"
    if login == "certificate":  # then nothing names the account
        lines = bundle.read_text().splitlines()
        bundle.write_text("\n".join(line for line in lines if not line.startswith(("username", "password_file"))))
    assert (
        main([*command, "--client-id", "dev-1", "--set", f"task={folder.parent}/task.py", "--config", str(bundle)]) == 2
    )
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"fedmq {command[0]}: ")
    assert ("the operator's login" in said.err) == (login == "both")
    assert "the operator's bundle" in said.err
