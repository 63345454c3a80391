"""Pictures of runs, and what is said where there can be none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmq.aggregator.export import Run
from fedmq.report import draw_run
from fedmq.schemas.errors import ConfigError, StoreError, UnusableError
from fedmq.schemas.layout import Entry, Layout


def record(version: int, mean: dict[str, float] | None, own: dict[str, float] | None = None) -> dict[str, Any]:
    devices = None if mean is None else {"mean": mean}
    return {"version": version, "updates": [{"staleness": 2}], "seconds": 1.5, "devices": devices, "aggregator": own}


def run_of(*history: dict[str, Any]) -> Run:
    return Run("a" * 32, len(history), Layout((Entry("w", (1,)),)), np.zeros(1, np.float32), list(history), {})


@pytest.mark.parametrize(
    "history",
    [
        [record(1, {"loss": 2.0, "accuracy": 0.5}), record(2, None, {"accuracy": 0.6})],
        [record(1, {"mae": 3.0}), record(2, {"loss": 1.0})],
        [record(1, None)],
        [record(1, {"$\\frac$\n\x1b[2J": 3.0})],
    ],
)
def test_a_run_is_drawn_whatever_was_measured_of_it(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    draw_run(tmp_path / "report.png", run_of(*history))
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"no version of run a+ was made yet, so there is nothing to draw"):
        draw_run(tmp_path / "report.png", run_of())
    with pytest.raises(UnusableError, match=r"report\.png: it cannot be written: No such file or directory"):
        draw_run(tmp_path / "nowhere" / "report.png", run_of(record(1, None)))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="needs the package matplotlib, which is not installed: pip install"):
        draw_run(tmp_path / "report.png", run_of(record(1, None)))
