"""The task of the chaos run: an update adds one at a place that is its own, so that the weights count the updates.

The place encodes the client and the sequence number that the update is about to get, read from the device's outbox: so
it is durable, and a training whose update did not reach the outbox before a crash leaves no gap and takes no number.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from fedmq import Trained
from fedmq.schemas.plan import Plan
from fedmq.tasks.contract import Arrays

__all__ = ["PLACES", "RESTS", "STOP", "TRAINED", "task_version", "train_numpy"]

PLACES = 1024
"""Updates that a client may make in one run."""

STOP = "stop"
"""A file beside the devices' folders; while it is there no device trains."""

RESTS = "rests"
"""A file in the device's folder, which is there once it trains no more: what it had begun before is in its outbox."""

TRAINED = "trained"
"""A file in the device's folder with one line for each training, crashed or not: its place among the client's."""

_SECONDS = 0.03  # that a training takes, before it counts as one

task_version = "1"


def train_numpy(weights: Arrays, plan: Plan) -> Trained:
    """Add one at the place of the next update."""
    number, folder = int(os.environ["CHAOS_CLIENT"]), Path(os.environ["CHAOS_DEVICE"])
    time.sleep(_SECONDS)
    while (sequence := _next_sequence(folder)) >= PLACES or (folder.parent / STOP).exists():
        if (folder.parent / STOP).exists():
            (folder / RESTS).touch()
        time.sleep(_SECONDS)
    with (folder / TRAINED).open("a") as trained:
        trained.write(f"{sequence}\n")
    weights["counts"][number * PLACES + sequence] += 1
    return Trained(weights, num_samples=10)


def _next_sequence(folder: Path) -> int:
    outbox = sqlite3.connect(f"file:{folder / 'outbox.sqlite'}?mode=ro", uri=True)
    try:
        (sequence,) = outbox.execute("SELECT value FROM meta WHERE key = 'next'").fetchone()
        return int(sequence)
    finally:
        outbox.close()
