"""What somebody else has left in a folder leads root nowhere: no mode is changed there, and nothing is copied out."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmq.broker_config.provision.closing import close_up
from fedmq.broker_config.provision.private_files import make_folder, read_private, write_folder, write_private
from fedmq.broker_config.secure_configuration import read_configuration
from fedmq.schemas.errors import ConfigError, StoreError
from tests.broker_config.provisioned import Provision, content

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, and read what is not given to it")
BROKEN_INTO = 12345
SHADOW = "root:$y$j9T$SALT$ROOTSHASH:19000::::\nf.dev-1:$y$j9T$SALT$ANOTHER:19000::::\n"


@pytest.fixture
def provision(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Provision:
    """A federation of dev-1 and dev-2, whose broker's folder was given to a user of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    made = Provision(tmp_path / "secure", capsys)
    made.begin("dev-1", "dev-2")
    if os.geteuid() == 0:
        give(made.root / "broker")
    return made


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """A folder of root's with a program and a secret."""
    folder = tmp_path / "roots"
    folder.mkdir()
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o755)
    (folder / "shadow").write_text(SHADOW)
    (folder / "shadow").chmod(0o600)
    return folder


def give(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, BROKEN_INTO, BROKEN_INTO)


def state(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Modes, owners and contents."""
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_uid, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


def a_symbolic_link(path: Path, target: Path) -> None:
    path.symlink_to(target)
    os.lchown(path, BROKEN_INTO, BROKEN_INTO)


def a_link_of_roots(path: Path, target: Path) -> None:
    """One that its folder's owner may have moved there."""
    path.symlink_to(target)


def a_hard_link(path: Path, target: Path) -> None:
    path.hardlink_to(target)


@root
@pytest.mark.parametrize("arguments", [(), ("--revoke", "dev-2"), ("--renew", "--all")])
@pytest.mark.parametrize(
    ("name", "lead", "target"),
    [
        ("data", a_symbolic_link, "."),
        ("data", a_link_of_roots, "."),
        ("passwords", a_symbolic_link, "shadow"),
        ("passwords", a_hard_link, "shadow"),
        ("identity.pem", a_symbolic_link, "shadow"),
        ("revoked.pem", a_hard_link, "tool"),
        ("mosquitto.conf", a_symbolic_link, "nowhere"),
        ("broker.log", a_hard_link, "tool"),
    ],
)
def test_what_the_brokers_user_has_left_is_refused_and_nothing_is_changed(
    provision: Provision,
    roots: Path,
    name: str,
    lead: Callable[[Path, Path], None],
    target: str,
    arguments: tuple[str, ...],
) -> None:
    path = provision.root / "broker" / name
    if path.exists():
        path.rename(path.with_name("aside"))
    lead(path, roots / target)
    before = state(roots), state(provision.root)
    found = "a file that has another name too (a hard link)" if lead is a_hard_link else "a symbolic link"
    said = provision.fails(*arguments)
    sentence = (
        f"{path}: found {found}, expected a file or folder; the one that it is in belongs to user {BROKEN_INTO}, who"
        " may have been broken into: look at it, remove it, and run this again"
    )
    assert said.startswith(sentence)
    if "--revoke" in arguments and name not in ("passwords", "revoked.pem"):
        # A revocation counts where nothing of it is in question.
        assert said.removeprefix(sentence).startswith("; out all the same: dev-2")
        assert "dev-2" in (provision.root / "aggregator" / "revoked").read_text()
    else:
        assert said.removeprefix(sentence) == ("; not out yet: dev-2" if "--revoke" in arguments else "")
    assert state(roots) == before[0]
    if "--revoke" not in arguments:
        assert state(provision.root) == before[1]
    path.unlink()
    if path.with_name("aside").exists():
        path.with_name("aside").rename(path)
    provision(*arguments)


@root
@pytest.mark.parametrize("arguments", [(), ("--revoke", "dev-2")])
def test_what_is_none_of_its_files_and_the_users_own_files_with_another_name_are_left_alone(
    provision: Provision, roots: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """A log that lies elsewhere, and a backup of links."""
    before = state(roots)
    a_symbolic_link(provision.root / "broker" / "log", roots)
    backup = tmp_path / "backup"
    backup.mkdir()
    for name in ("passwords", "ca.pem", "revoked.pem", "identity.pem"):
        (backup / name).hardlink_to(provision.root / "broker" / name)
    provision(*arguments)
    assert state(roots) == before
    assert ("dev-2" in (provision.root / "aggregator" / "revoked").read_text()) == bool(arguments)


@root
def test_a_folder_that_cannot_be_looked_at_is_one_sentence_and_a_revocation_counts(provision: Provision) -> None:
    data = provision.root / "broker" / "data"
    data.rmdir()
    data.touch()
    code, out, err = provision.run("--revoke", "dev-2")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"{data}: it cannot be looked at: Not a directory; out all the same: dev-2" in err


@root
def test_a_file_of_a_third_account_is_refused(provision: Provision) -> None:
    os.chown(provision.root / "broker" / "passwords", BROKEN_INTO + 1, 0)
    assert f"broker/passwords: found a file of user {BROKEN_INTO + 1}, expected" in provision.fails("--revoke", "dev-2")


@root
def test_a_configuration_that_is_a_link_is_not_run(provision: Provision, roots: Path) -> None:
    path = provision.root / "broker" / "mosquitto.conf"
    path.rename(roots / "mosquitto.conf")
    a_symbolic_link(path, roots / "mosquitto.conf")
    with pytest.raises(ConfigError, match=r"broker/mosquitto\.conf: found a symbolic link"):
        read_configuration(path, ("both",))


def test_only_lines_of_accounts_that_are_in_stay_in_the_password_file(provision: Provision) -> None:
    path = provision.root / "broker" / "passwords"
    lines = path.read_text().splitlines(keepends=True)
    ours = [line for line in lines if not line.startswith("f.dev-2:")]
    another = lines[0].replace("f.", "another.")
    path.write_text(f"{SHADOW}{''.join(lines)}{another}f.operator:$y$j9T$SALT$OTHER\n")
    (provision.root / "operator" / "identity.pem").write_text("")
    # So that the run ends when the revocation is written.
    assert "out all the same: dev-2" in provision.fails("--revoke", "dev-2")
    assert path.read_text() == "".join(ours)


@root
@pytest.mark.parametrize("owner", [0, BROKEN_INTO])
def test_links_on_the_way_to_the_folder_are_its_users_affair(provision: Provision, tmp_path: Path, owner: int) -> None:
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "secure"
    link.symlink_to("../secure")
    os.lchown(link, owner, owner)
    os.chown(link.parent, owner, owner)
    there = provision.root
    (there / "broker" / "ca.pem").chmod(0o644)
    provision.root = link
    said = provision("--add", "dev-3")
    assert "could be read by others, and is closed now: broker/ca.pem\n" in said
    provision.root = there
    assert "nothing to do" in provision()


@root
def test_a_link_that_root_has_made_is_followed(provision: Provision, tmp_path: Path) -> None:
    moved = tmp_path / "srv"
    (provision.root / "broker").rename(moved)
    (provision.root / "broker").symlink_to(moved)
    provision("--revoke", "dev-2")
    assert "f.dev-2" not in (moved / "passwords").read_text()
    (moved / "rules").chmod(0o644)
    assert "could be read by others, and is closed now: broker/rules\n" in provision()
    assert {path.stat().st_uid for path in (moved, *moved.rglob("*"))} == {BROKEN_INTO}
    assert (provision.root / "broker").is_symlink()


def test_whose_folder_it_is_may_lay_links_in_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "folder").symlink_to("elsewhere")
    assert write_private(tmp_path / "folder" / "file", b"content")
    (tmp_path / "link").symlink_to("folder/file")
    assert read_private(tmp_path / "link") == b"content"
    assert read_private(tmp_path / "folder" / ".." / "link") == b"content"
    make_folder(tmp_path / "folder" / "deep" / "deeper")
    write_folder(tmp_path / "folder" / "bundle", {"file": b""})
    assert set(content(tmp_path / "elsewhere")) == {"file", "bundle/file"}
    assert close_up(tmp_path / "folder") == [tmp_path / "folder"]
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(StoreError, match="Too many levels of symbolic links"):
        read_private(tmp_path / "circle" / "file")


def test_what_is_no_file_has_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="it is no regular file"):
        read_private(tmp_path / "pipe")
    assert close_up(tmp_path) in ([], [tmp_path])


@root
@pytest.mark.parametrize("write", ["file", "folder"])
def test_a_folder_that_is_exchanged_for_a_link_meanwhile_leads_nowhere(
    tmp_path: Path, roots: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    give(folder)
    before = state(roots)
    real = os.fchown

    def exchanging(descriptor: int, uid: int, gid: int) -> None:
        if not folder.is_symlink():
            folder.rename(tmp_path / "before")
            a_symbolic_link(folder, roots)
        real(descriptor, uid, gid)

    monkeypatch.setattr(os, "fchown", exchanging)
    if write == "file":
        write_private(folder / "tool", b"new")
    else:
        write_folder(folder / "bundle", {"tool": b"new"})
    assert folder.is_symlink()
    assert state(roots) == before
    assert list(content(tmp_path / "before").values()) == [b"new"]
    assert {owner for _, owner, _ in state(tmp_path / "before").values()} == {BROKEN_INTO}


@root
def test_a_folder_that_is_exchanged_for_a_link_when_it_was_looked_at_leads_nowhere(
    tmp_path: Path, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broker" / "data"
    folder.mkdir(parents=True)
    give(folder.parent)
    before = state(roots)
    real = os.stat

    def exchanging(path: str, **options: Any) -> os.stat_result:
        found = real(path, **options)
        if path == "data":
            folder.rmdir()
            a_symbolic_link(folder, roots)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", exchanging)
        with pytest.raises(StoreError, match=r"Not a directory|Too many levels"):
            close_up(folder)
    assert state(roots) == before


@root
@pytest.mark.parametrize("lead", [a_symbolic_link, a_hard_link])
def test_a_file_that_is_exchanged_for_a_link_meanwhile_leads_nowhere(
    tmp_path: Path, roots: Path, monkeypatch: pytest.MonkeyPatch, lead: Callable[[Path, Path], None]
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    (folder / "file").touch(0o644)
    give(folder)
    before = stat.S_IMODE((roots / "tool").stat().st_mode)
    real = os.stat

    def exchanging(path: str, **options: Any) -> os.stat_result:
        found = real(path, **options)
        if path == "file":
            (folder / "file").unlink()
            lead(folder / "file", roots / "tool")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", exchanging)
        with pytest.raises((ConfigError, StoreError)):
            close_up(folder)
    assert stat.S_IMODE((roots / "tool").stat().st_mode) == before == 0o755
