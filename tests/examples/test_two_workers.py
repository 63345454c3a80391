"""The example runs as its reader runs it, and its figures are true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "two_workers.py"


@pytest.fixture(scope="module")
def outputs() -> list[str]:
    """What two runs at the same time print."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen([sys.executable, SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=one_thread)
        for _ in range(2)
    ]
    printed = []
    for run in runs:
        try:
            out, err = run.communicate(timeout=120)
        finally:
            run.kill()
        assert (run.returncode, err) == (0, b"")
        printed.append(out.decode())
    return printed


@pytest.fixture(scope="module")
def printed(outputs: list[str]) -> str:
    return outputs[0]


def losses(printed: str) -> list[tuple[int, float, str]]:
    """(version, loss, what) of every line."""
    rows = re.findall(r"^version +(\d+)   loss (\d\.\d{4})   (.+)$", printed, re.MULTILINE)
    return [(int(version), float(loss), what) for version, loss, what in rows]


def test_alice_and_bob_learn_bob_goes_on_alone_and_alice_comes_back(printed: str) -> None:
    rows = losses(printed)
    assert [version for version, _, _ in rows] == [0, *range(100, 50 * len(rows) + 50, 50)]
    whats = [what for _, _, what in rows]
    assert whats[:3] == ["nobody has trained", "alice and bob", "bob alone"]
    assert set(whats[3:]) == {"alice is back"}
    scores = [loss for _, loss, _ in rows]
    assert scores[:-1] == sorted(scores[:-1], reverse=True), "better at every stop, also with alice unplugged"
    assert scores[1] < scores[0] / 10
    assert scores[2] < scores[1] / 2, "bob goes on alone"


def test_federated_training_is_about_as_good_as_central_training_with_as_many_steps(printed: str) -> None:
    found = re.search(r"^federated (\S+), centrally (\S+), both after (\d+) steps$", printed, re.MULTILINE)
    assert found
    federated, centrally, steps = float(found[1]), float(found[2]), int(found[3])
    assert federated == losses(printed)[-1][1]
    assert federated < 1.2 * centrally, "at most a fifth worse"
    assert centrally < 0.015, "near the 0.01 of the noise"
    assert steps >= 5 * losses(printed)[-1][0], "five steps for every version"


def test_two_runs_print_the_same(outputs: list[str]) -> None:
    assert outputs[0] == outputs[1]
