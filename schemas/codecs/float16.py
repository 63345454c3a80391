"""`float16`: parameters in two bytes, little-endian, then statistics in four: a running variance may exceed 65,504."""

from __future__ import annotations

import numpy as np

from fedmq.schemas.codecs.codec import Codec, require_size
from fedmq.schemas.layout import Layout, Vector

__all__ = ["CODEC"]

_LARGEST = float(np.finfo(np.float16).max)


def _encode(vector: Vector, layout: Layout) -> bytes:
    parameters, statistics = vector[: layout.parameter_size], vector[layout.parameter_size :]
    # Saturated, not overflowed: one infinity would have the whole update refused.
    narrow = np.clip(parameters, -_LARGEST, _LARGEST).astype("<f2")
    return narrow.tobytes() + statistics.astype("<f4", copy=False).tobytes()


def _decode(data: bytes | memoryview, layout: Layout) -> Vector:
    split = 2 * layout.parameter_size
    require_size("float16", data, split + 4 * (layout.size - layout.parameter_size))
    vector = np.empty(layout.size, np.float32)
    vector[: layout.parameter_size] = np.frombuffer(data[:split], "<f2")
    vector[layout.parameter_size :] = np.frombuffer(data[split:], "<f4")
    return vector


CODEC = Codec("float16", _encode, _decode)
