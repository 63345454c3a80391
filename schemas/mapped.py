"""Vectors in mapped files: what was read of one need not stay in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

from fedmq.schemas.layout import Vector

__all__ = ["blocks", "let_go"]

_BLOCK = 1 << 16  # floats; what is worked on at a time stays in the cache
_LET_GO = 1 << 20  # floats of a mapped file that are in memory at a time


def blocks(vector: Vector) -> Iterator[tuple[int, Vector]]:
    """A vector from front to back, in pieces with their places; of a mapped file, little stays in memory."""
    for start in range(0, len(vector), _BLOCK):
        yield start, vector[start : start + _BLOCK]
        if (start + _BLOCK) % _LET_GO == 0:
            let_go(vector)
    let_go(vector)


def let_go(data: Any) -> None:
    """If this is a view of a mapped file that is only read: its pages may leave this process until they are needed.

    The system would take them too when memory is short, but until then they count as this process's.

    Args:
        data: bytes, a memoryview, or a numpy array.

    """
    while not isinstance(data, mmap.mmap):
        data = data.obj if isinstance(data, memoryview) else getattr(data, "base", None)
        if data is None:
            return
    if memoryview(data).readonly and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)
