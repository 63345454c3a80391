"""The bytes of a snapshot while some of its parts may have to be published again."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from fedmq.schemas.errors import StoreError

__all__ = ["Kept"]

log = logging.getLogger("fedmq.aggregator")


class Kept:
    """A snapshot's bytes: in a file without a name if there is a folder with room for them, else in memory.

    Args:
        body: the bytes.
        folder: for the file; None keeps them in memory.

    """

    def __init__(self, body: memoryview, folder: Path | None) -> None:
        self.size = len(body)
        self._file: IO[bytes] | None = None
        self._memory: memoryview | None = body
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (kept as long as the slot)
            written = 0
            while written < self.size:
                written += self._file.write(body[written:])
            self._memory = None
        except OSError as error:
            self._close()  # without a name it would keep the disk full
            log.warning("a snapshot stays in memory bytes=%d: %s", self.size, error)

    def read(self, start: int, size: int) -> bytes | memoryview:
        """So many bytes from `start` on, or as many as there are. Raises StoreError: the disk refuses."""
        if self._memory is not None:
            return self._memory[start : start + size]
        assert self._file is not None
        size = min(size, self.size - start)
        try:
            data = os.pread(self._file.fileno(), size, start)
        except OSError as error:
            raise StoreError(f"a snapshot cannot be read: {error}") from error
        if len(data) != size:
            raise StoreError(f"a snapshot cannot be read: {len(data)} of {size} bytes at {start}")
        return data

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def __del__(self) -> None:
        # A slot, a snapshot on its way, or both refer to it: whoever is the last one lets it go.
        self._close()
