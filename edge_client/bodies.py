"""Large vectors of the outbox, each in a file of its own: SQLite would write them twice, and takes no gigabyte.

A file is whole and on the disk before the outbox's transaction refers to it; one that nothing refers to is removed.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedmq.schemas.errors import StoreError

__all__ = ["BodyFiles"]


class BodyFiles:
    """The files of one kind in a device's folder, by number. Methods raise OSError."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._kind = kind
        self._lock = threading.Lock()
        self._closed = False

    def write(self, number: int, body: bytes | memoryview) -> None:
        """Keep a body; it survives a crash from here on. From any thread. Raises StoreError once it is closed."""
        path = self._path(number)
        part = path.with_name(path.name + ".part")
        # A thread may outlive its client, and the next one's numbers and names are the same: its part is opened while
        # the folder is still ours, and removed by the next one's start.
        with self._ours():
            file = open(part, "wb")  # noqa: SIM115 (closed below, without the lock)
        with file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        with self._ours():
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

    def close(self) -> None:
        """From here on no file is begun or put in place."""
        with self._lock:
            self._closed = True

    @contextmanager
    def _ours(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise StoreError(f"device folder {self._folder}: its client was stopped")
            yield

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._kind}-{number}.body"
