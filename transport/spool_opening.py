"""A spool of an earlier process: what a large one holds is read and compared in a thread, while the link is served."""

from __future__ import annotations

import threading
from pathlib import Path

from fedmq.schemas.errors import StoreError
from fedmq.transport.spool import FileSpool, key_of

__all__ = ["AT_ONCE_BYTES", "Opening"]

AT_ONCE_BYTES = 8 << 20
"""Of a body; a smaller one is read at once: a card that reads 20 MB a second has that in less than half a second."""


_PART_SECONDS = 2.0  # in which a disk that works reads one part; then it sees that nobody waits


class Opening:
    """A `FileSpool` on its way; the arguments are its.

    Raises:
        StoreError: the disk refuses.

    """

    def __init__(self, path: Path, key: str, size: int) -> None:
        self._result: FileSpool | Exception | None = None
        self._wanted = True
        self._thread: threading.Thread | None = None
        if size <= AT_ONCE_BYTES or key_of(path) != key:
            self._result = FileSpool(path, key, size)
            return
        # A daemon: a process that is told to stop does not wait for it.
        self._thread = threading.Thread(target=self._open, args=(path, key, size), name="fedmq-spool", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether `take` gives it at once."""
        return self._result is not None

    def take(self) -> FileSpool:
        """The spool; once, when it is ready.

        Raises:
            StoreError: the disk refuses.

        """
        assert self._result is not None
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def close(self) -> None:
        """Nobody wants it any more: its files stay, and another may open them."""
        self._wanted = False
        if self._thread is not None:
            self._thread.join(_PART_SECONDS)
        if isinstance(self._result, FileSpool):
            self._result.close()

    def _open(self, path: Path, key: str, size: int) -> None:
        try:
            self._result = FileSpool(path, key, size, wanted=lambda: self._wanted)
        except StoreError as error:
            self._result = error
