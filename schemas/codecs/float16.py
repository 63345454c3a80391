"""`float16`: parameters in two bytes, little-endian, then statistics in four: a running variance may exceed 65,504."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedmq.schemas.codecs.codec import Encoding, Span, of_parameters, require_size
from fedmq.schemas.layout import Vector

__all__ = ["CODEC"]

_BLOCK = 1 << 16  # what is worked on at a time stays in the cache
_LARGEST = float(np.finfo(np.float16).max)


def _encode(parameters: Vector, encoding: Encoding) -> Span:
    halves = np.empty(len(parameters), "<f2")
    for start in range(0, len(parameters), _BLOCK):
        # Saturated, not overflowed: one infinity would have the whole update refused.
        halves[start : start + _BLOCK] = np.clip(parameters[start : start + _BLOCK], -_LARGEST, _LARGEST)
    return halves.view(np.uint8).data


def _decode(data: memoryview, count: int) -> Iterator[Vector]:
    require_size("float16", data, 2 * count)
    halves = np.frombuffer(data, "<f2")
    for start in range(0, count, _BLOCK):
        yield halves[start : start + _BLOCK].astype(np.float32)


CODEC = of_parameters("float16", _encode, _decode, element=2, feedback=False)
