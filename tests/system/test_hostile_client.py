"""The short form of `make hostile`: a device with valid credentials that sends everything that it should not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.broker

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def beside(what: str) -> dict[str, Any]:
    """What a few seconds beside it come to."""
    command = [sys.executable, "hostile_client.py", "--seeds", "1", "--seconds", "10", "--only", what, "--json"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["runs"][0])


@pytest.mark.usefixtures("mosquitto_installed")
@pytest.mark.parametrize("what", ["innocent", "all"])
def test_a_federation_learns_beside_a_hostile_device_and_counts_what_it_refuses(what: str) -> None:
    found = beside(what)
    assert found["accuracy"] > 0.7  # from 0.1 at the beginning; three seconds where nobody is hostile
    assert found["sent"] > 10_000
    assert found["peak_mb"] < 250
    assert found["folder_kb"] < 20_000
    assert found["log_kb"] < 100
    assert found["broker_mb"] < 150
    counted = set(found["rejected"]) | set(found["later"])
    assert {"wrong_run", "task_version", "unknown_base", "signature"} <= counted
    if what == "all":
        assert found["quarantine"][0].startswith("mallory: ")
        assert {"layout", "schema", "too_large", "wrong_client", "quarantine"} <= counted
    else:
        assert found["quarantine"] == []
        assert "rate" in counted
