"""A log that somebody else may have prepared, and that strangers fill."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmq.broker_config import log_file
from fedmq.broker_config.log_file import LogFile
from fedmq.schemas.errors import ConfigError


def a_link(path: Path) -> None:
    path.with_name("target").touch()
    path.symlink_to("target")


@pytest.mark.parametrize("prepare", [a_link, Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_written(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    prepare(tmp_path / "broker.log")
    with pytest.raises(ConfigError, match=r"broker\.log: it "):
        LogFile(tmp_path / "broker.log")


def test_it_goes_on_where_it_was_and_is_for_its_owner_only(tmp_path: Path) -> None:
    for line in (b"first\n", b"second\n"):
        log = LogFile(tmp_path / "broker.log")
        size = log.size
        os.write(log.fileno(), line)
        assert log.since(size) == [line.decode().strip()]
        log.close()
    assert (tmp_path / "broker.log").read_text() == "first\nsecond\n"
    assert (tmp_path / "broker.log").stat().st_mode & 0o777 == 0o600


def test_what_is_too_much_loses_its_oldest_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "_MAX_BYTES", 100)
    log = LogFile(tmp_path / "broker.log")
    sizes = []
    for number in range(100):
        os.write(log.fileno(), b"line %03d\n" % number)
        log.keep_newest()
        sizes.append(log.size)
    log.close()
    assert max(sizes) <= 100
    numbers = [int(line.split()[1]) for line in log.path.read_text().splitlines()]
    assert numbers == list(range(numbers[0], 100))
    assert 5 <= len(numbers) <= 11
