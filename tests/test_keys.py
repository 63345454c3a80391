"""Keys in files, and the number of a start."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmq.broker_config.provision.signing_keys import new_signing_key, public_key, with_key
from fedmq.keys import aggregator_keys, device_keys, watch_keys
from fedmq.schemas.errors import ConfigError, StoreError
from fedmq.session import AtWork, next_session
from fedmq.signing_settings import SigningSettings


def settings(folder: Path) -> SigningSettings:
    """A device's, whose aggregator has its own key: one pair is enough for a test of files."""
    pem = new_signing_key()
    (folder / "key").write_bytes(pem)
    (folder / "ours").write_text(public_key(pem, folder))
    (folder / "theirs").write_text(f"dev-1 {public_key(pem, folder)}\n")
    return SigningSettings(
        key_file=folder / "key", aggregator_keys_file=folder / "ours", device_keys_file=folder / "theirs"
    )


def test_a_key_that_changes_is_used_at_once(tmp_path: Path) -> None:
    made = settings(tmp_path)
    keys = device_keys(made, "dev-1")
    assert keys is not None
    old = keys.sign(b"x")
    assert keys.verify("aggregator", b"x", old)
    other = Ed25519PrivateKey.generate()
    new = other.sign(b"x")
    assert not keys.verify("aggregator", b"x", new)
    (tmp_path / "ours").write_text(other.public_key().public_bytes_raw().hex() + "\n")
    assert keys.verify("aggregator", b"x", new)
    assert not keys.verify("aggregator", b"x", old)
    (tmp_path / "ours").write_text("rubbish")
    assert keys.verify("aggregator", b"x", new)  # what it held before
    (tmp_path / "ours").unlink()
    assert keys.verify("aggregator", b"x", new)


def test_a_device_that_is_not_in_the_file_has_no_key(tmp_path: Path) -> None:
    keys = aggregator_keys(settings(tmp_path))
    assert keys is not None
    assert keys.verify("dev-1", b"x", keys.sign(b"x"))
    assert not keys.verify("dev-2", b"x", keys.sign(b"x"))


def test_without_settings_nothing_is_signed_and_half_of_them_is_a_mistake(tmp_path: Path) -> None:
    nothing = SigningSettings()
    assert (aggregator_keys(nothing), device_keys(nothing, "dev-1"), watch_keys(nothing)) == (None, None, None)
    half = SigningSettings(key_file=tmp_path / "key")
    for make in (aggregator_keys, lambda given: device_keys(given, "dev-1")):
        with pytest.raises(ConfigError, match="or none of them"):
            make(half)


def test_without_cryptography_it_is_said_which_pip_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = settings(tmp_path)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(ConfigError) as caught:
        device_keys(made, "dev-1")
    assert str(caught.value) == (
        f"[signing]: the key in {tmp_path / 'key'} needs the package cryptography, which is not installed: "
        f"{sys.executable} -m pip install 'fedmq[secure]'"
    )


def test_the_newest_two_keys_of_an_account_are_trusted() -> None:
    assert with_key(("a", "b"), "c") == ("b", "c")
    assert with_key(("a", "b"), "b") == ("a", "b")
    assert with_key((), None) == ()


def test_every_start_has_a_greater_number_whatever_the_clock_says(tmp_path: Path) -> None:
    path = tmp_path / "session"
    assert [next_session(path, now) for now in (1000, 2000, 5, 5)] == [1000, 2000, 2001, 2002]


def test_the_number_of_a_start_is_on_the_disk_and_so_is_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "session", list[tuple[bool, bool]]()

    def noted(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    next_session(path)
    assert synced == [(False, False), (True, True)]


def test_the_session_that_was_let_in_is_remembered_in_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "session-at-work"
    first = AtWork(path)
    assert (first.session, first.begin(5), first.session) == (0, False, 5)
    assert first.begin(5)  # another connection of the same start
    again = AtWork(path)
    assert (again.session, again.begin(9), AtWork(path).session) == (5, True, 9)
    path.write_text("rubbish")
    with pytest.raises(StoreError, match="session-at-work: the number of a start cannot be read"):
        AtWork(path)
