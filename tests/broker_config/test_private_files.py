"""Whose what is written is: only root can give it to anyone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedmq.broker_config.provision.private_files import make_folder, write_folder, write_private

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

SOMEBODY = (12345, 54321)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of somebody else."""
    made = tmp_path / "broker"
    made.mkdir()
    os.chown(made, *SOMEBODY)
    return made


def owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_what_root_writes_and_replaces_belongs_to_whom_the_folder_belongs(folder: Path) -> None:
    for content in (b"new", b"replaced"):
        assert write_private(folder / "file", content)
        assert owner(folder / "file") == SOMEBODY
    assert not write_private(folder / "file", b"replaced")
    make_folder(folder / "data" / "deep")
    write_folder(folder / "bundle", {"file": b""})
    assert {owner(path) for path in folder.rglob("*")} == {SOMEBODY}
    assert len(list(folder.rglob("*"))) == 5


def test_a_file_that_the_folders_owner_cannot_read_is_brought_in_order(folder: Path) -> None:
    write_private(folder / "file", b"content")
    os.chown(folder / "file", 0, 0)
    assert write_private(folder / "file", b"content")
    assert owner(folder / "file") == SOMEBODY


def test_a_link_is_replaced_and_what_it_leads_to_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "roots").write_text("root's")
    (folder / "file").symlink_to(tmp_path / "roots")
    assert write_private(folder / "file", b"content")
    assert not (folder / "file").is_symlink()
    assert (tmp_path / "roots").read_text() == "root's"
    assert owner(tmp_path / "roots") == (0, 0)
