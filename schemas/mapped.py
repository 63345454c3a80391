"""Vectors in mapped files: what was read of one need not stay in memory."""

from __future__ import annotations

import mmap
from typing import Any

__all__ = ["let_go"]


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
