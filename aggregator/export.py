"""What a run has come to, read from its folder while an aggregator may be working in it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fedmq.schemas.errors import StoreError
from fedmq.schemas.layout import Layout, Vector

__all__ = ["Run", "history_file", "model_file", "read_figures", "read_run"]

_ATTEMPTS = 20  # a commit may replace the vectors between our two looks


@dataclass(frozen=True, slots=True)
class Run:
    """A run as of its last commit.

    Attributes:
        run: its id.
        version: of the weights.
        layout: of the weights.
        weights: float32 [layout.size].
        history: how each version came to be, oldest first, with what was measured of it.
        figures: totals: accepted, rejected, staleness_sum, uplink_bytes, seconds, finished.

    """

    run: str
    version: int
    layout: Layout
    weights: Vector
    history: list[dict[str, Any]]
    figures: dict[str, Any]

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """The weights by name."""
        return self.layout.views(self.weights)


def read_run(folder: Path) -> Run:
    """The run in this folder.

    Raises:
        StoreError: there is none, or it cannot be read.

    """
    path = folder / "run.sqlite"
    if not path.is_file():
        raise StoreError(f"run folder {folder}: there is no run in it; give the aggregator's folder")
    for attempt in range(_ATTEMPTS):
        try:
            return _read(folder, path)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise StoreError(f"run folder {folder}: its vectors are missing") from None
        except (sqlite3.Error, SafetensorError, OSError, KeyError, TypeError) as error:
            raise StoreError(f"run folder {folder}: it cannot be read: {error}") from error
    raise AssertionError("unreachable")


def read_figures(folder: Path) -> dict[str, Any]:
    """The totals of the run in this folder, without its weights; errors as for `read_run`."""
    path = folder / "run.sqlite"
    if not path.is_file():
        raise StoreError(f"run folder {folder}: there is no run in it; give the aggregator's folder")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            row = database.execute("SELECT value FROM state WHERE key = 'state'").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"run folder {folder}: it cannot be read: {error}") from error
    return dict(json.loads(row[0])) if row else {}


def _read(folder: Path, path: Path) -> Run:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        database.execute("BEGIN")  # one moment for all of it
        values = {key: json.loads(value) for key, value in database.execute("SELECT key, value FROM state")}
        rows = database.execute("SELECT record, devices, aggregator FROM history ORDER BY version").fetchall()
    finally:
        database.close()
    history = [
        json.loads(record) | {"devices": json.loads(devices or "null"), "aggregator": json.loads(aggregator or "null")}
        for record, devices, aggregator in rows
    ]
    if "state" not in values:
        raise StoreError(f"run folder {folder}: nothing was committed yet; wait for the aggregator to start")
    figures = values["state"]
    weights = np.array(load_file(folder / values["files"]["weights"])["weights"], np.float32)
    layout = Layout.decode(bytes.fromhex(values["layout"]))
    return Run(figures["run"], figures["version"], layout, weights, history, figures)


def model_file(run: Run, statistics_key: str) -> bytes:
    """The weights as safetensors under their `state_dict` names, with the names of the statistics in the metadata."""
    statistics = [entry.name for entry in run.layout.entries if entry.kind == "statistic"]
    metadata = {"fedmq.run": run.run, "fedmq.version": str(run.version), statistics_key: json.dumps(statistics)}
    return save({name: np.ascontiguousarray(array) for name, array in run.arrays().items()}, metadata)


def history_file(run: Run) -> bytes:
    """The history, a line of JSON for each version."""
    return "".join(json.dumps(record) + "\n" for record in run.history).encode()
