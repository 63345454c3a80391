"""The number of an aggregator's start: greater every time, whatever becomes of its folder or its clock."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fedmq.schemas.errors import StoreError

__all__ = ["next_session"]


def next_session(path: Path, milliseconds: int | None = None) -> int:
    """A number greater than any before: the time, or one more than the last if the clock was put back.

    Args:
        path: of the file that holds the last one.
        milliseconds: since 1970; the machine's clock if None.

    Raises:
        StoreError: the disk does not take it.

    """
    try:
        last = int(path.read_text(encoding="ascii")) if path.exists() else 0
        now = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
        session = max(last + 1, now)
        aside = path.with_name(f".{path.name}.part")
        with open(aside, "w", encoding="ascii") as file:
            file.write(f"{session}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: the number of this start cannot be kept: {error}") from error
    return session
