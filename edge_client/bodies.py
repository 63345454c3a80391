"""Large vectors of the outbox, each in a file of its own: SQLite would write them twice, and takes no gigabyte.

A file is whole and on the disk before the outbox's transaction refers to it; one that nothing refers to is removed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

__all__ = ["BodyFiles"]


class BodyFiles:
    """The files of one kind in a device's folder, by number. Methods raise OSError."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._kind = kind

    def write(self, number: int, body: bytes | memoryview) -> None:
        """Keep a body; it survives a crash from here on."""
        path = self._path(number)
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

    def read(self, number: int, start: int, end: int) -> bytes:
        """The bytes from `start` up to, not including, `end`."""
        with open(self._path(number), "rb") as file:
            file.seek(start)
            return file.read(end - start)

    def view(self, number: int, size: int) -> memoryview:
        """All of a body of this size, from its file as it is needed; it stays good when the body is removed."""
        with open(self._path(number), "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))

    def remove(self, number: int) -> None:
        """Let a body go, if it is here."""
        with suppress(OSError):  # then the next start removes it
            self._path(number).unlink()

    def remove_all_but(self, numbers: Container[int]) -> None:
        """Remove what a crash left."""
        for path in self._folder.glob(f"{self._kind}-*.body*"):
            number = path.name.removeprefix(f"{self._kind}-").removesuffix(".body")
            if not number.isdigit() or int(number) not in numbers:
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._kind}-{number}.body"
