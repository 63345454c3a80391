"""The list of revoked devices, as the aggregator reads it, and what it does with it beside refusing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.revoked import Revoked
from fedmq.aggregator.scores import summarised
from fedmq.aggregator.strategies import fedavg
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.messages import ClientStatus, Evaluation
from fedmq.schemas.wire import encode
from tests.aggregator.door import CLIENT, LAYOUT, TOPICS, Door
from tests.aggregator.small_run import RUN


def test_without_a_file_nobody_is_out() -> None:
    assert Revoked(None).ids() == frozenset()


def test_the_file_is_read_again_when_it_is_another(tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    file.write_text("")
    revoked = Revoked(file)
    assert revoked.ids() == frozenset()
    file.write_text("dev-1\n\n dev-2\r\n")
    assert revoked.ids() == {"dev-1", "dev-2"}
    other = tmp_path / "other"
    other.write_text("dev-1\n\n dev-3\r\n")  # as long as before, and in its place by a rename
    other.replace(file)
    assert revoked.ids() == {"dev-1", "dev-2", "dev-3"}


WRONG = {
    "dev-1\ndev 2\ndev-3\n": "line 2: found 'dev 2', expected an id",
    "dev-1\ndev/2\ndev-3\ndev 4\n": "line 2: found 'dev/2', expected an id",
    "dev-1\ndev-3\ndev-": "line 3: found 'dev-' without an end of the line, as if it was cut off",
    "dev-1\ndev-3\n\udcff\n": "line 3: found '\N{REPLACEMENT CHARACTER}', expected an id",
}


@pytest.mark.parametrize("content", [None, *WRONG])
def test_no_aggregator_starts_with_a_list_that_is_not_there_or_has_something_wrong(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "revoked"
    if content is not None:
        file.write_text(content, errors="surrogateescape")
    with pytest.raises(ConfigError) as refused:
        Revoked(file)
    why = "it cannot be read: No such file or directory" if content is None else WRONG[content]
    said = f"aggregator.revoked_file: {file}: {why}; `fedmq provision` writes this file, empty if nobody is out"
    assert str(refused.value) == said


@pytest.mark.parametrize("content", [None, "", "dev-3\n", *WRONG])
def test_whoever_was_out_is_so_still_whatever_becomes_of_the_file_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    file = tmp_path / "revoked"
    file.write_text("dev-1\ndev-2\n")
    revoked = Revoked(file)
    assert revoked.ids() == {"dev-1", "dev-2"}
    why = {
        None: "it cannot be read: No such file or directory",
        "": "2 devices that were in it are not in it any more",
        "dev-3\n": "2 devices that were in it are not in it any more",
    }
    file.unlink()
    if content is not None:
        file.write_text(content, errors="surrogateescape")
    out = {"dev-1", "dev-2"} | ({"dev-3"} if content and "dev-3" in content else set())
    assert [revoked.ids() for _ in range(3)] == [out] * 3
    assert complaints(caplog) == [
        f"aggregator.revoked_file: {file}: {(why | WRONG)[content]}; whoever was out is so still"
    ]


def test_what_was_put_right_is_said_again_when_it_is_wrong_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "revoked"
    file.write_text("dev-1\n")
    revoked = Revoked(file)
    for _ in range(2):
        file.unlink()
        caplog.clear()
        revoked.ids()
        assert len(complaints(caplog)) == 1
        file.write_text("dev-1\n")
        revoked.ids()
        assert len(complaints(caplog)) == 1


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_a_file_that_others_may_not_read_is_read_as_soon_as_they_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "revoked"
    file.write_text("")
    revoked = Revoked(file)
    file.write_text("dev-1\n")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", _refuses)
        assert revoked.ids() == frozenset()
    assert revoked.ids() == {"dev-1"}  # though its date is the same


def _refuses(path: Path) -> bytes:
    raise PermissionError(13, "Permission denied")


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


def test_no_round_waits_for_who_is_revoked_whatever_is_shown_of_it(tmp_path: Path) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT), strategy=fedavg(clients=1))
    online = encode(ClientStatus(state="online", client_id=CLIENT, incarnation="c" * 32))
    door.say(online, topic=TOPICS.status(CLIENT))
    assert door.core.cohort.online == {CLIENT}
    (tmp_path / "revoked").write_text(f"{CLIENT}\n")
    door.work(3.0)
    assert door.core.cohort.online == set()
    door.say(online, topic=TOPICS.status(CLIENT))
    assert door.core.cohort.online == set()
    assert door.state.rejected == {"revoked": 1}
