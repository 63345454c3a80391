"""splitmix64: random bits that follow from a seed and a place alone, in any language and in any order.

Steele, Lea, Flood 2014, https://doi.org/10.1145/2714064.2660195.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedmq.schemas.layout import Vector

__all__ = ["uniform", "words"]


def words(seed: int, first: int, count: int) -> npt.NDArray[np.uint64]:
    """So many of its numbers from this seed on, uint64, beginning with the one at index `first`."""
    with np.errstate(over="ignore"):
        z = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def uniform(seed: int, start: int, count: int) -> Vector:
    """So many floats, float32 in [0, 1), for the places from `start` on, an even number."""
    halves = words(seed, start // 2, -(-count // 2)).view(np.uint32)[:count]
    return (halves >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
