"""Updates in parts that an earlier process left on the disk: their clients go on with them, or they make room."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fedmq.transport.spool import FileSpool, key_of, remove
from fedmq.transport.spool_opening import Opening

__all__ = ["LeftParts"]


class _File(NamedTuple):
    path: Path
    key: str  # of what update it has parts
    size: int


class LeftParts:
    """The files of spools that nobody has come back to yet.

    Args:
        folder: of the spools; the name of each begins with its client's, up to a dot.

    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, list[_File]] = {}
        for path in sorted(folder.glob("*.body")):
            file = _File(path, key_of(path), path.stat().st_size)
            self._files.setdefault(path.name.partition(".")[0], []).append(file)
        self._opening: tuple[_File, Opening] | None = None  # which is read again, one after the other

    def clients(self) -> list[str]:
        """Whose they are."""
        return list(self._files)

    @property
    def taken(self) -> int:
        """Bytes that all of them take."""
        return sum(file.size for files in self._files.values() for file in files)

    def of(self, client_id: str, key: str | None = None) -> int:
        """Bytes of this client's, or of one update of it."""
        return sum(file.size for file in self._files.get(client_id, ()) if key in (None, file.key))

    def has(self, client_id: str, key: str) -> bool:
        """Whether there is something of this update."""
        return self._find(client_id, key) is not None

    def is_opening(self, client_id: str) -> bool:
        """Whether one of this client is being read again."""
        if self._opening is None or self._opening[1].ready:
            return False
        return self._opening[0] in self._files.get(client_id, ())

    def resume(self, client_id: str, key: str, size: int) -> FileSpool | None:
        """What is here of this update, of so many bytes; None while it, or another one, is read again.

        Raises:
            StoreError: the disk refuses.

        """
        file = self._find(client_id, key)
        assert file is not None
        if self._opening is not None and self._opening[0] is not file:
            if not self._opening[1].ready:
                return None
            self._close()  # its client has not come back to it since
        if self._opening is None:
            self._opening = file, Opening(file.path, key, size)
        opening = self._opening[1]
        if not opening.ready:
            return None
        self._opening = None
        spool = opening.take()
        self._forget(client_id, file)
        return spool

    def drop(self, client_id: str) -> None:
        """Remove this client's."""
        for file in list(self._files.get(client_id, ())):
            if self._opening is not None and self._opening[0] is file:
                self._close()
            self._forget(client_id, file)
            remove(file.path)

    def close(self) -> None:
        """Let them be for the next process."""
        self._close()

    def _find(self, client_id: str, key: str) -> _File | None:
        return next((file for file in self._files.get(client_id, ()) if file.key == key), None)

    def _forget(self, client_id: str, file: _File) -> None:
        files = self._files[client_id]
        files.remove(file)
        if not files:
            del self._files[client_id]

    def _close(self) -> None:
        if self._opening is not None:
            self._opening[1].close()
            self._opening = None
