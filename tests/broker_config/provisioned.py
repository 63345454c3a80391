"""A provisioned folder for a test: made by the command, looked at, and checked for what always holds."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedmq.broker_config.provision.passwords import read_password_file, verifies
from fedmq.cli import main
from fedmq.keys import aggregator_keys, device_keys, watch_keys
from fedmq.settings import load_settings

__all__ = ["Provision", "bundles", "check_bundles", "check_signatures", "content", "secrets_in"]


@dataclass
class Provision:
    """Runs `fedmq provision` on one folder.

    Attributes:
        root: the folder.
        said: everything that the command has printed, on both ways out.

    """

    root: Path
    capsys: pytest.CaptureFixture[str]
    said: str = ""

    def __call__(self, *arguments: str) -> str:
        """Run it, expecting that it works; what it printed."""
        code, out, err = self.run(*arguments)
        assert (code, err) == (0, ""), err
        return out

    def fails(self, *arguments: str) -> str:
        """Run it, expecting one sentence about a mistake; that."""
        code, out, err = self.run(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
        return err.removeprefix("fedmq provision: ").rstrip("\n")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = main(["provision", "--out", str(self.root), *arguments])
        out, err = self.capsys.readouterr()
        self.said += out + err
        return code, out, err

    def begin(self, *client_ids: str, options: tuple[str, ...] = ()) -> str:
        """Make a federation f of these devices."""
        clients = self.root.with_name("ids.txt")
        clients.write_text("".join(f"{client_id}\n" for client_id in client_ids))
        return self("--federation", "f", "--clients", str(clients), *options)


def content(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def bundles(root: Path) -> Iterator[tuple[str, Path]]:
    """Every account with its bundle."""
    for name in ("aggregator", "operator"):
        yield name, root / name
    for path in sorted((root / "devices").glob("[!.]*")):
        yield path.name, path


def check_bundles(root: Path) -> None:
    """What holds at any moment, whatever was cut off: each bundle is whole, private, and fits the broker's files."""
    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    lines = read_password_file((root / "broker" / "passwords").read_bytes())
    for name, bundle in bundles(root):
        settings = load_settings(bundle / "federation.toml", environment={})
        assert settings.broker.username == f"f.{name}"
        context = ssl.create_default_context(cafile=str(settings.broker.ca_file))
        assert settings.broker.cert_file is not None
        context.load_cert_chain(settings.broker.cert_file, settings.broker.key_file)  # which looks if they fit
        if name == "operator":
            assert watch_keys(settings.signing) is not None
        elif name == "aggregator":
            assert aggregator_keys(settings.signing) is not None
        else:
            check_signatures(bundle, root / "aggregator", name)
        password = settings.broker.read_password()
        assert password is not None
        assert verifies(lines[f"f.{name}"], password)


def check_signatures(bundle: Path, aggregators: Path, name: str) -> None:
    """What the aggregator signs now is believed by this device, and the other way round; by their bundles."""
    device = device_keys(load_settings(bundle / "federation.toml", environment={}).signing, name)
    aggregator = aggregator_keys(load_settings(aggregators / "federation.toml", environment={}).signing)
    assert device is not None
    assert aggregator is not None
    assert device.verify("aggregator", b"content", aggregator.sign(b"content"))
    assert aggregator.verify(name, b"content", device.sign(b"content"))
    assert not device.verify("aggregator", b"content", device.sign(b"content"))


def secrets_in(root: Path) -> set[str]:
    """Everything in a folder that nobody else may see: passwords, their hashes, and lines of private keys."""
    found = set((root / "broker" / "passwords").read_text().split("$"))
    for path in root.rglob("password"):
        found.add(path.read_text().strip())
    for path in root.rglob("*.pem"):
        _, begin, rest = path.read_text().partition("-----BEGIN PRIVATE KEY-----\n")
        found |= set(rest.partition("-----END")[0].splitlines()) if begin else set()
    return {secret for secret in found if len(secret) > 12}
