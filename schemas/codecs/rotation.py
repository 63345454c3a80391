"""A random rotation that needs no matrix: signs that follow from a seed, then Hadamard's transform.

Additions and subtractions alone, in a fixed order: every machine gets the same bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedmq.schemas.codecs.splitmix import words
from fedmq.schemas.layout import Vector

__all__ = ["flip_signs", "hadamard"]

_SIDE = 64


def flip_signs(values: Vector, seed: int, start: int) -> None:
    """Flip the sign of those whose bit is set, in place; `start` is the place of the first in the whole vector.

    The bits are those of splitmix64's numbers from this seed on, the lowest bit of each first.
    """
    first, before = divmod(start, 64)
    count = -(-(before + len(values)) // 64)
    bits = np.unpackbits(words(seed, first, count).astype("<u8").view(np.uint8), bitorder="little")
    bits = bits[before : before + len(values)]
    as_integers = values.view(np.uint32)
    as_integers ^= bits.astype(np.uint32) << np.uint32(31)


def hadamard(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each row times Hadamard's matrix, not scaled: twice of it is the row times its length. The argument is used up.

    Args:
        rows: float32 [number, size], the size a power of two. For h = 1, 2, 4, … up to half of it, every pair of
            numbers at i and i + h, with the bit h not set in i, becomes its sum and its difference.

    """
    number, size = rows.shape
    if size != _SIDE * _SIDE:
        return _stages(rows.reshape(number, size, 1)).reshape(number, size)
    # The first six stages on the transposed square, because numpy is slow where neighbours are not worked on alike.
    squares = np.ascontiguousarray(rows.reshape(number, _SIDE, _SIDE).swapaxes(1, 2))
    squares = np.ascontiguousarray(_stages(squares).swapaxes(1, 2))
    return _stages(squares).reshape(number, size)


def _stages(cubes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Along the middle axis of [number, size, width]."""
    number, size, width = cubes.shape
    other = np.empty_like(cubes)
    step = 1
    while step < size:
        pairs = cubes.reshape(number, size // (2 * step), 2, step * width)
        into = other.reshape(number, size // (2 * step), 2, step * width)
        np.add(pairs[:, :, 0], pairs[:, :, 1], out=into[:, :, 0])
        np.subtract(pairs[:, :, 0], pairs[:, :, 1], out=into[:, :, 1])
        cubes, other = other, cubes
        step *= 2
    return cubes
