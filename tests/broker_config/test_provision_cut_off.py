"""A run of `fedmq provision` that is cut off, at every step that it takes on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmq.broker_config.provision.certificates import read_identity
from fedmq.broker_config.provision.private_files import alone_in
from fedmq.broker_config.provision.signing_keys import public_key
from fedmq.cli import main
from tests.broker_config.provisioned import Provision, bundles, check_bundles, content


class CutOffError(BaseException):
    """The power is gone."""


class Disk:
    """Counts what is written, and ends at one step: before it is done, or when it is done but nothing after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self.last: int | None = None
        for name in ("replace", "rename", "fsync", "open", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self._counting(getattr(os, name), os.O_CREAT if name == "open" else 0))

    def _counting(self, real: Callable[..., object], flag: int) -> Callable[..., object]:
        def step(*arguments: int, **options: object) -> object:
            if not flag or arguments[1] & flag:  # else it is opened only, which changes nothing on the disk
                self.steps += 1
                if self.steps == self.last:
                    raise CutOffError
            return real(*arguments, **options)

        return step


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the steps is what is tested here; no power is really cut."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize(
    ("arguments", "again"),
    [
        (("--federation", "f", "--clients", "more.txt"), "the same"),
        (("--add", "dev-3"), "the same"),
        (("--revoke", "dev-2"), "the same"),
        (("--renew", "--all"), "the same"),
        (("--renew", "dev-2"), "nothing"),
        (("--host", "10.0.0.7", "--login", "certificate"), "the same"),
    ],
)
def test_what_is_left_is_usable_and_the_next_run_finishes_it_and_tells_of_both(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    again: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("more.txt").write_text("dev-1\ndev-2\ndev-3\n")
    new = arguments[0] == "--federation"
    next_arguments = arguments if again == "the same" else ()

    def begun(number: int) -> Provision:
        provision = Provision(tmp_path / f"{number}" / "secure", capsys)
        provision.root.parent.mkdir()
        if not new:
            provision.begin("dev-1", "dev-2")
        return provision

    whole = begun(0)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        # What is said of the revoked devices' topics after that depends on the broker.
        told = whole(*arguments).replace(str(whole.root), "ROOT").partition("what dev-2 left")[0]
        steps = disk.steps
    files = content(whole.root)
    assert 10 < steps < 500
    for number in range(1, steps + 1):
        provision = begun(number)
        before, in_the_field = content(provision.root) if not new else {}, signing_keys(provision.root)
        with monkeypatch.context() as patch:
            disk = Disk(patch)
            disk.last = number
            with pytest.raises(CutOffError):
                main(["provision", "--out", str(provision.root), *arguments])
        if not new:
            check_bundles_there(provision.root)
        heard = capsys.readouterr().out
        said = heard + provision(*next_arguments)
        after = content(provision.root)
        if after == before and again == "nothing":
            continue  # it had decided nothing yet
        assert set(after) == set(files)  # nor is any half of a file there
        assert after["broker/rules"] == files["broker/rules"]
        assert after["broker/mosquitto.conf"] == files["broker/mosquitto.conf"]
        check_bundles(provision.root)
        check_certificates(provision.root)
        # Who has heard that it is done, and asks once more, has renewed twice.
        assert heard or in_the_field <= trusted_keys(provision.root)
        assert told in said.replace(str(provision.root), "ROOT")
        provision()
        assert content(provision.root) == after


def check_certificates(root: Path) -> None:
    """Each bundle has the certificate that was issued last."""
    accounts = json.loads((root / "provision.json").read_text())["accounts"]
    for name, bundle in bundles(root):
        identity = read_identity((bundle / "identity.pem").read_bytes(), bundle)
        assert f"{identity.serial:x}" == accounts[name]["issued"][-1]["serial"]


def signing_keys(root: Path) -> set[str]:
    """The public keys of all that sign."""
    return {public_key(path.read_bytes(), path) for path in root.rglob("signing.pem")}


def trusted_keys(root: Path) -> set[str]:
    """The public keys that everybody believes."""
    devices = (root / "aggregator" / "device-keys").read_text().splitlines()
    found = {line.split()[1] for line in devices}
    lists = [set(path.read_text().split()) for path in root.rglob("aggregator-keys")]
    assert all(each == lists[0] for each in lists)
    return found | lists[0]


def check_bundles_there(root: Path) -> None:
    """All is whole but for the bundle that comes or goes."""
    new = root / "devices" / "dev-3"
    if new.exists():
        # It has its name only when it is whole.
        assert set(content(new)) == {
            *("ca.pem", "federation.toml", "identity.pem", "password", "signing.pem", "aggregator-keys"),
        }
    aside = root.with_name("aside")
    aside.mkdir()
    for name in ("dev-2", "dev-3"):
        if (root / "devices" / name).exists():
            (root / "devices" / name).rename(aside / name)
    hidden = list(root.rglob(".*.part"))
    moved = [path.rename(aside / path.name) for path in hidden]
    check_bundles(root)
    for path, place in zip(hidden, moved, strict=True):
        place.rename(path)
    for name in ("dev-2", "dev-3"):
        if (aside / name).exists():
            (aside / name).rename(root / "devices" / name)
    aside.rmdir()


def test_two_runs_at_once_are_one_and_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provision = Provision(tmp_path / "secure", capsys)
    provision.begin("dev-1")
    with alone_in(provision.root):
        assert provision.fails() == f"{provision.root}: another process is at work in it; wait for its end"


def test_a_disk_that_is_full_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    provision = Provision(tmp_path / "secure", capsys)
    provision.begin("dev-1")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, _, err = provision.run("--add", "dev-2")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot be written: No space left on device" in err
    provision("--add", "dev-2")
    check_bundles(provision.root)
