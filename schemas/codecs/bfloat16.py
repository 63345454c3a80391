"""`bfloat16`: the upper half of a float32, rounded to nearest even: its range, and three digits less. Little-endian."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmq.schemas.codecs.codec import Encoding, Span, of_parameters, require_size
from fedmq.schemas.layout import Vector

__all__ = ["CODEC", "narrow", "widen"]

_LARGEST = np.uint32(0x7F7F0000)  # the bits of the largest finite one


def narrow(values: Vector) -> npt.NDArray[np.uint16]:
    """Their upper halves, uint16, rounded; what would become infinite becomes the largest. NaN stays NaN."""
    bits = values.view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    rounded = magnitude + np.uint32(0x7FFF) + ((magnitude >> np.uint32(16)) & np.uint32(1))
    np.minimum(rounded, _LARGEST, out=rounded)
    rounded[magnitude > np.uint32(0x7F800000)] = 0x7FC00000
    halves: npt.NDArray[np.uint16] = ((rounded | (bits & np.uint32(0x80000000))) >> np.uint32(16)).astype("<u2")
    return halves


def widen(halves: npt.NDArray[Any], out: Vector) -> None:
    """The floats of these halves."""
    np.left_shift(halves, np.uint32(16), out=out.view(np.uint32), dtype=np.uint32, casting="unsafe")


def _encode(parameters: Vector, encoding: Encoding) -> Span:
    halves = np.empty(len(parameters), "<u2")
    for start in range(0, len(parameters), _BLOCK):
        halves[start : start + _BLOCK] = narrow(np.ascontiguousarray(parameters[start : start + _BLOCK]))
    return halves.view(np.uint8).data


def _decode(data: memoryview, count: int) -> Iterator[Vector]:
    require_size("bfloat16", data, 2 * count)
    halves = np.frombuffer(data, "<u2")
    for start in range(0, count, _BLOCK):
        block = np.empty(min(_BLOCK, count - start), np.float32)
        widen(halves[start : start + _BLOCK], block)
        yield block


_BLOCK = 1 << 16  # what is worked on at a time stays in the cache

CODEC = of_parameters("bfloat16", _encode, _decode, element=2, feedback=False)
