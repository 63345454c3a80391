"""The list of revoked devices, as the aggregator reads it, and what it does with it beside refusing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.revoked import Revoked
from fedmq.aggregator.scores import summarised
from fedmq.schemas.messages import Evaluation
from tests.aggregator.door import CLIENT, LAYOUT, Door
from tests.aggregator.small_run import RUN


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


def test_whoever_was_out_is_so_still_while_the_file_cannot_be_used_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "revoked"
    file.write_text("dev-1\n")
    revoked = Revoked(file)
    assert revoked.ids() == {"dev-1"}
    for content in (None, b"\xff", b"dev/1\n"):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        caplog.clear()
        assert [revoked.ids() for _ in range(3)] == [{"dev-1"}] * 3
        (said,) = (record.getMessage() for record in caplog.records)
        assert said.startswith(f"aggregator.revoked_file: {file} cannot be read (")
        file.touch()
    for name in ("dev-2", "dev-3"):  # what is over is news when it begins again
        file.unlink()
        caplog.clear()
        revoked.ids()
        assert len(caplog.records) == 1
        file.write_text(f"{name}\n")
        assert revoked.ids() == {name}


def test_who_is_revoked_counts_no_more_in_what_is_shown(tmp_path: Path) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT))
    measured = Evaluation(num_samples=10, metrics={"accuracy": 0.5})
    assert door.ask(door.offer(evaluation=measured)) is None
    progress = door.progress()
    assert (progress.devices, progress.clients) == (summarised([measured]), (CLIENT,))
    (tmp_path / "revoked").write_text(f"{CLIENT}\nsomebody-else\n")
    progress = door.progress()
    assert (progress.devices, progress.clients) == (None, ())
    assert progress.updates == 1
