"""The list of revoked devices, as the aggregator reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmq.aggregator.revoked import Revoked
from fedmq.schemas.errors import ConfigError


def test_without_a_file_nobody_is_out() -> None:
    assert Revoked(None).ids() == frozenset()


def test_the_file_is_read_again_when_it_is_another(tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    file.write_text("")
    revoked = Revoked(file)
    assert revoked.ids() == frozenset()
    file.write_text("dev-1\ndev-2\n")
    assert revoked.ids() == {"dev-1", "dev-2"}
    other = tmp_path / "other"
    other.write_text("dev-3\ndev-4\n")  # as long as before, and in its place by a rename
    other.replace(file)
    assert revoked.ids() == {"dev-3", "dev-4"}


def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    revoked = Revoked(file)
    with pytest.raises(ConfigError, match=r"aggregator\.revoked_file: .*revoked cannot be read"):
        revoked.ids()
    for content in (b"\xff", b"dev/1\n"):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="revoked"):
            revoked.ids()
