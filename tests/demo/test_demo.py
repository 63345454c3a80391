"""The demo as a person runs it: processes, a broker, files, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedmq.cli import main
from fedmq.demo import run as demo_run
from fedmq.demo.run import Result, speed_factors
from tests.system.processes import until

KEYS = {
    *("accuracy", "accuracy_unseen", "central_accuracy", "sync_accuracy", "seconds", "seconds_to_target"),
    *("sync_seconds_to_target", "version", "updates", "mean_staleness", "uplink_bytes", "downlink_bytes", "run_dir"),
}


def demo(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fedmq", "demo", "--out", str(folder), *options]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,  # a group of its own, as a terminal would give it
        # Whoever runs the tests in the background has them, and what they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that name this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in command and str(os.getpid()) != path.parent.name:
            found.append(command)
    return found


@pytest.mark.parametrize("engine", ["auto", "embedded"])
def test_a_short_run_ends_with_one_json_object_and_a_folder_with_everything(tmp_path: Path, engine: str) -> None:
    folder = tmp_path / "run"
    options = ("--max-seconds", "15", "--clients", "2", "--speeds", "1-2", "--seed", "3", "--engine", engine, "--json")
    running = demo(folder, *options)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    figures = json.loads(output.splitlines()[-1])
    assert set(figures) >= KEYS
    assert figures["run_dir"] == str(folder)
    assert figures["updates"] >= figures["version"] > 0
    assert 0 < figures["accuracy"] <= 1
    # 27,495 floats of 4 bits each, and what is sent beside them.
    assert figures["updates"] * 13_000 < figures["uplink_bytes"] < figures["updates"] * 20_000
    assert figures["central_accuracy"] is None
    versions = [json.loads(line)["version"] for line in (folder / "history.jsonl").read_text().splitlines()]
    assert versions == list(range(1, figures["version"] + 1))
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "simulated" not in output
    assert {"model.safetensors", "federation.toml", "logs"} <= {path.name for path in folder.iterdir()}
    assert processes_of(folder) == []


def test_ctrl_c_ends_every_process_and_says_where_the_run_so_far_is(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running = demo(folder, "--clients", "2", "--max-seconds", "60")
    assert running.stderr is not None
    for line in running.stderr:
        if "version" in line:
            break
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert f"interrupted; the run so far: {folder}" in errors
    assert "Traceback" not in errors
    assert (folder / "model.safetensors").exists()
    assert processes_of(folder) == []


def test_ctrl_c_while_the_clients_are_still_starting_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running = demo(folder, "--clients", "2")
    deadline = time.monotonic() + 60
    while not any("--client-id" in command for command in processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert str(folder) in errors
    assert "Traceback" not in errors
    # One that was just being started is ended by the kernel when its parent is gone, which takes a moment.
    until(lambda: processes_of(folder) == [], "every process to be gone")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--clients", "9"), "--clients 9: expected 1 to 8"),
        (("--clients", "0"), "--clients 0: expected 1 to 8"),
        (("--speeds", "fast"), "--speeds fast: expected one factor for all (1) or two (1-10)"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_exit_code_2(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    running = demo(tmp_path / "run", *options)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 2
    assert says in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("updates", "code"), [(0, 1), (7, 0)])
def test_whose_training_failed_is_named_at_the_end_and_it_is_exit_code_1_if_nobody_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], updates: int, code: int
) -> None:
    result = Result(
        name="FedMQ fedbuff",
        accuracy=0.0,
        accuracy_unseen=0.0,
        version=0,
        updates=updates,
        mean_staleness=0.0,
        seconds=0.0,
        seconds_to_target=None,
        uplink_bytes=0,
        downlink_bytes=0,
        interrupted=False,
        folder=tmp_path,
        failing=["wearer-1: the training failed: KeyError: 4"],
    )
    monkeypatch.setattr(demo_run, "run_federated", lambda *_, **__: result)
    assert main(["demo", "--out", str(tmp_path)]) == code
    named = "fedmq demo: FedMQ fedbuff: wearer-1: the training failed: KeyError: 4"
    assert capsys.readouterr().err.splitlines()[-1] == named


def test_speeds_are_spread_evenly_in_ratio() -> None:
    assert speed_factors(["a", "b", "c"], 1.0, 100.0) == pytest.approx({"a": 1.0, "b": 10.0, "c": 100.0})
    assert speed_factors(["a"], 1.0, 10.0) == {"a": 1.0}
