"""What is written of a testbed at work where there is no terminal."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fedmq import view
from fedmq.schemas.messages import ClientStatus, DeviceEvaluation, Progress
from fedmq.schemas.wire import encode
from fedmq.settings import load_settings
from fedmq.transport.link import Message
from fedmq.view import View
from fedmq.watch import Watch

PROGRESS = Progress(run="b" * 32, version=0, state="training", strategy="fedbuff", updates=0)


def test_a_line_is_written_when_there_is_news_and_says_no_more_than_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(view, "_PLAIN_INTERVAL", 0.0)
    watch = Watch(load_settings(None, ["federation=f"], {}), "f-eye")
    shown = View("task.py", seconds=62.0)
    for _ in range(3):
        shown.show(watch, 1, 0.0)
    watch.clients["dev-1"] = ClientStatus(state="online", client_id="dev-1", incarnation="a" * 32, connection=1)
    shown.show(watch, 1, 0.0)
    watch.progress = PROGRESS
    for second in range(3):
        shown.show(watch, 1, float(second))
    evaluation = DeviceEvaluation(clients=1, num_samples=9, mean={"loss": 0.25}, spread={"loss": 0.0})
    watch.progress = PROGRESS.model_copy(
        update={"version": 2, "updates": 2, "uplink_bytes": 200, "devices": evaluation}
    )
    shown.show(watch, 1, 3.0)
    watch.progress = watch.progress.model_copy(update={"state": "finished"})
    watch.clients.clear()
    shown.show(watch, 1, 63.0)
    assert capsys.readouterr().err.splitlines() == [
        "task.py: 0 of 1 clients ready",
        "task.py: 1 of 1 clients ready",
        "task.py:    0 of 62 s  version 0  nothing measured yet  1 of 1 clients",
        "task.py:    3 of 62 s  version 2  loss 0.250  0.0 updates/s  mean staleness 0.0  100 B an update"
        "  1 of 1 clients",
        "task.py:   62 of 62 s  version 2  loss 0.250  0.0 updates/s  mean staleness 0.0  100 B an update",
    ]


class Heard:
    """A link on which what is put here was heard."""

    def __init__(self) -> None:
        self.events: list[Message] = []

    def poll(self, timeout: float) -> Message | None:
        return self.events.pop(0) if self.events else None


def test_a_client_whose_training_failed_is_named_with_the_reason_once_until_it_has_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(view, "_PLAIN_INTERVAL", 0.0)
    watch, heard = Watch(load_settings(None, ["federation=f"], {}), "f-eye"), Heard()
    monkeypatch.setattr(watch, "_link", heard)
    watch.progress = PROGRESS
    shown = View("task.py", seconds=62.0)
    status = ClientStatus(state="online", client_id="dev-1", incarnation="a" * 32, connection=1)

    def say(**changes: str) -> None:
        heard.events.append(Message("fedmq/f/status/dev-1", encode(status.model_copy(update=changes))))
        watch.poll(0.0)
        shown.show(watch, 2, 5.0)

    why = "the training failed: RuntimeError: shapes\n  differ"
    for _ in range(2):
        say(activity="error", detail=why)
        say(activity="training", detail=why)
    assert watch.failing == {"dev-1": why}
    say(activity="waiting")
    say(activity="error", detail="the training failed: KeyError: 4")
    say(state="offline", activity="stopped", detail="told to stop")
    assert watch.failing == {"dev-1": "the training failed: KeyError: 4"}
    run = "task.py:    5 of 62 s  version 0  nothing measured yet"
    assert capsys.readouterr().err.splitlines() == [
        "task.py: dev-1: the training failed: RuntimeError: shapes differ",
        f"{run}  1 of 2 clients, 1 failing",
        f"{run}  1 of 2 clients",
        "task.py: dev-1: the training failed: KeyError: 4",
        f"{run}  1 of 2 clients, 1 failing",
        f"{run}  0 of 2 clients, 1 failing",
    ]


def test_make_says_what_takes_long() -> None:
    root = Path(__file__).parents[2]
    said = subprocess.run(
        ["make", "-n", "-B", ".venv/.torch"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "installing PyTorch, about 200 MB" in said
