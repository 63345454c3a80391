"""The number of an aggregator's start, greater every time; and of the newest that was let in to work."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fedmq.schemas.errors import StoreError

__all__ = ["AtWork", "next_session"]


def next_session(path: Path, milliseconds: int | None = None) -> int:
    """A number greater than any before: the time, or one more than the last if the clock was put back.

    Args:
        path: of the file that holds the last one.
        milliseconds: since 1970; the machine's clock if None.

    Raises:
        StoreError: the disk does not take it.

    """
    now = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    session = max(_read(path) + 1, now)
    _write(path, session)
    return session


class AtWork:
    """The newest session in which this folder's aggregator was let in: what others have shown before that is over.

    Args:
        path: of the file that holds it; nothing is kept if None.

    Attributes:
        session: 0 if it was never let in with signatures.

    Raises:
        StoreError: the file cannot be read.

    """

    def __init__(self, path: Path | None) -> None:
        self.session = _read(path) if path is not None else 0
        self._path = path

    def begin(self, session: int) -> bool:
        """It is let in; whether it was before. Raises StoreError: the disk does not take it."""
        before = self.session
        if session != before and self._path is not None:
            _write(self._path, session)
        self.session = session
        return before > 0


def _read(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii")) if path.exists() else 0
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: the number of a start cannot be read: {error}") from error


def _write(path: Path, session: int) -> None:
    aside = path.with_name(f".{path.name}.part")
    try:
        with open(aside, "w", encoding="ascii") as file:
            file.write(f"{session}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        # Without a real-time clock the number of the last start is all that keeps this one from being used again.
        names = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(names)
        finally:
            os.close(names)
    except OSError as error:
        raise StoreError(f"{path}: the number of this start cannot be kept: {error}") from error
