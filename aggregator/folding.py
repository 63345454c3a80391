"""Adding one vector to another, scaled: the whole arithmetic of receiving an update.

Block by block, in one fixed order and size, so that a replay gives the same bits, and so that a block stays in the
cache between its multiplication and its addition: about twice as fast as `total += weight * vector` on large arrays.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fedmq.schemas.layout import Vector

__all__ = ["BLOCK", "LARGEST", "add_scaled", "is_bounded", "scale_and_add", "whole"]

BLOCK = 64 * 1024
"""Elements that are worked on at a time."""

LARGEST = 1e15
"""What an update may hold: so many of them, weighted by samples, still sum to a finite float32. Weights are near 1."""

_SURELY_BOUNDED = 1e29  # a sum of squares: no element is beyond 3.2e14 then, with room for whatever rounding adds


def whole(pieces: Iterable[tuple[int, Vector]], size: int) -> Vector:
    """The vector of this size that the pieces make; not a copy if it comes in one."""
    vector: Vector | None = None
    for start, piece in pieces:
        if len(piece) == size:
            return piece
        if vector is None:
            vector = np.empty(size, np.float32)
        vector[start : start + len(piece)] = piece
    assert vector is not None
    return vector


def add_scaled(total: Vector, weight: float, vector: Vector) -> None:
    """total += weight * vector, in place; all of them float32 of one length."""
    if len(total) <= BLOCK:
        total += vector * weight  # a Python float, which numpy makes a float32, and faster than we would
        return
    factor = np.float32(weight)
    scratch = np.empty(BLOCK, np.float32)
    for start in range(0, len(total), BLOCK):
        part = total[start : start + BLOCK]
        product = scratch[: len(part)]
        np.multiply(vector[start : start + BLOCK], factor, out=product)
        part += product


def scale_and_add(total: Vector, weight: float, vector: Vector) -> None:
    """total = vector + weight * total, in place; all of them float32 of one length."""
    factor = np.float32(weight)
    for start in range(0, len(total), BLOCK):
        part = total[start : start + BLOCK]
        part *= factor
        part += vector[start : start + BLOCK]


def is_bounded(vector: Vector) -> bool:
    """Whether every element is a number of at most LARGEST in size, without a temporary of its size."""
    for start in range(0, len(vector), BLOCK):
        part = vector[start : start + BLOCK]
        # No sum of squares is less than the largest of them, in whatever order it is taken, and a NaN in it compares as
        # False. At 2,500 elements it takes a third of what min and max take, which decide where it is too large. (`dot`
        # is faster still, but warns of an overflow.)
        if np.vdot(part, part) <= _SURELY_BOUNDED:
            continue
        # A NaN comes out of min and max, and compares as False.
        if not (part.min() >= -LARGEST and part.max() <= LARGEST):
            return False
    return True
