"""The recordings of the demo: what smartwatches measured while ten people did shoulder exercises.

Burns et al. 2018 (arXiv 1802.01489), as the package seglearn carries them: per wearer 14 series (seven exercises, each
with the left and with the right arm) of acceleration and rotation along three axes at 50 Hz, 19 to 52 seconds long.

One client is one wearer. The last two of the ten take no part in the training: they tell what the model is worth to a
stranger.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmq.schemas.errors import ConfigError

__all__ = ["CHANNELS", "EXERCISES", "STEP", "WINDOW", "Part", "Split", "split", "unseen", "wearers"]

CHANNELS = 6
"""Acceleration along x, y, z, then rotation about x, y, z."""

EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
"""What the targets 0 to 6 stand for."""

WINDOW = 100
"""Samples in a window: 2 s."""

STEP = 25
"""Samples from the start of one window to the start of the next: 0.5 s."""

# A watch knows which wrist it is on. Seen in a mirror, a right arm is a left arm: the axis along the forearm turns
# round, and so does the sense of rotation about the other two. Left as it is, each exercise would look like two.
_MIRROR = np.array([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0])

_TRAIN, _VALIDATION = 0.6, 0.2  # of a series, the gaps apart; the test stretch is what remains
_PARTICIPANTS, _WEARERS = 8, 10
_FILE, _SHA256 = "data/watch_dataset.npy", "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"

Part = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Windows, float32 [n, CHANNELS, WINDOW], and their exercises, int64 [n]."""


@dataclass(frozen=True, slots=True)
class Split:
    """One wearer's windows, in three parts that share no sample."""

    train: Part
    validation: Part
    test: Part


def wearers() -> list[str]:
    """The client ids of those who take part."""
    return [f"wearer-{number}" for number in range(1, _PARTICIPANTS + 1)]


def unseen() -> list[str]:
    """The ids of those whom nobody trains on: the last two numbers, set down before any model was trained."""
    return [f"wearer-{number}" for number in range(_PARTICIPANTS + 1, _WEARERS + 1)]


def split(client_id: str) -> Split:
    """One wearer's windows; the same at every call, on every machine.

    Each series is cut in time: 60 % to train on, then 20 % to validate, then 20 % to test, with WINDOW samples between
    them that no window touches. Right arms are mirrored to left ones. Every channel is shifted and scaled by the mean
    and the deviation of the wearer's own training stretches. A stranger's device does the same: it needs a while of
    wearing, and no targets.

    Raises:
        ConfigError: there is no such wearer, or the recordings are not installed.

    """
    if client_id not in wearers() + unseen():
        raise ConfigError(f"the demo has no recordings of {client_id!r}; its clients are wearer-1 to wearer-{_WEARERS}")
    recordings = _recordings()
    mine = np.flatnonzero(recordings["subject"] == int(client_id.removeprefix("wearer-")))
    worn_right = recordings["side"] == 1
    series = [recordings["X"][i] * (_MIRROR if worn_right[i] else 1.0) for i in mine]
    stretches = [_stretches(of_series) for of_series in series]
    worn = np.concatenate([train for train, _, _ in stretches])
    mean, deviation = worn.mean(axis=0), worn.std(axis=0)

    def part(index: int) -> Part:
        windows = [_windows((stretch[index] - mean) / deviation) for stretch in stretches]
        targets = np.repeat(recordings["y"][mine], [len(of_series) for of_series in windows])
        return np.concatenate(windows).astype(np.float32, order="C"), targets.astype(np.int64)

    return Split(train=part(0), validation=part(1), test=part(2))


def _stretches(series: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    used = len(series) - 2 * WINDOW
    first, second = int(_TRAIN * used), int((_TRAIN + _VALIDATION) * used)
    return series[:first], series[first + WINDOW : second + WINDOW], series[second + 2 * WINDOW :]


def _windows(stretch: NDArray[np.float64]) -> NDArray[np.float64]:
    windows = np.lib.stride_tricks.sliding_window_view(stretch, WINDOW, axis=0)  # [starts, CHANNELS, WINDOW], no copy
    return windows[::STEP]


@cache
def _recordings() -> dict[str, Any]:
    spec = importlib.util.find_spec("seglearn")  # finds the package without importing it, which would need scikit-learn
    path = Path(spec.origin).parent / _FILE if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise ConfigError(
            "the demo's recordings come with seglearn 1.2.5, which is not installed: pip install 'fedmq[demo]'"
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise ConfigError(f"{path} is not the file of seglearn 1.2.5: pip install --force-reinstall seglearn==1.2.5")
    # The one place where FedMQ loads a pickle: seglearn stores its arrays as one. It came with an installed package,
    # whose code the user trusts already, and the digest above says that it is that very file.
    loaded: dict[str, Any] = np.load(io.BytesIO(content), allow_pickle=True).item()
    return loaded
