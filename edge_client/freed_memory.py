"""Gives memory that was freed back to the system, where the C library would keep it for the next time."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["give_back_freed_memory"]


def give_back_freed_memory() -> None:
    """Do it, for this whole process; it goes on without if the C library cannot be asked.

    glibc keeps what was freed in pieces of less than 32 MiB: after an update of 100 MB was encoded that is 50 MB, which
    a device may want for something else until the next one.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
