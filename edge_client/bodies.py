"""Large updates in the outbox, each in a file of its own: SQLite would write them twice, and takes no gigabyte.

A file is whole and on the disk before the outbox's transaction refers to it; one that nothing refers to is removed.
"""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

__all__ = ["BodyFiles"]


class BodyFiles:
    """The files of one device's folder, by sequence number. Methods raise OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, sequence: int, body: bytes | memoryview) -> None:
        """Keep a body; it survives a crash from here on."""
        path = self._path(sequence)
        part = path.with_name(path.name + ".part")
        with open(part, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        names = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(names)
        finally:
            os.close(names)

    def read(self, sequence: int, start: int, end: int) -> bytes:
        """The bytes from `start` up to, not including, `end`."""
        with open(self._path(sequence), "rb") as file:
            file.seek(start)
            return file.read(end - start)

    def remove(self, sequence: int) -> None:
        """Let a body go, if it is here."""
        with suppress(OSError):  # then the next start removes it
            self._path(sequence).unlink()

    def remove_all_but(self, sequences: Container[int]) -> None:
        """Remove what a crash left."""
        for path in self._folder.glob("update-*.body*"):
            number = path.name.removeprefix("update-").removesuffix(".body")
            if not number.isdigit() or int(number) not in sequences:
                path.unlink(missing_ok=True)

    def _path(self, sequence: int) -> Path:
        return self._folder / f"update-{sequence}.body"
