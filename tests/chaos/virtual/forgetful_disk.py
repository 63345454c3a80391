"""A disk that loses, when the power fails, what nobody synced."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["ForgetfulDisk"]


class ForgetfulDisk:
    """Knows what of the vectors' files has reached the disk: contents and names apart.

    SQLite's files are left alone: it syncs them itself, and its own tests show that it does.

    Attributes:
        full: nothing can be written any more.

    """

    def __init__(self) -> None:
        self.full = False
        self._contents: set[tuple[int, int]] = set()
        self._names: dict[int, dict[str, int]] = {}  # by folder: which names are on the disk, and of which files

    def sync(self, descriptor: int) -> None:
        """What `os.fsync` promises for a file's content, or for the names in a folder.

        Raises:
            OSError: the disk is full.

        """
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._names[status.st_ino] = {entry.name: entry.inode() for entry in os.scandir(descriptor)}
        else:
            self._contents.add((status.st_ino, status.st_mtime_ns))

    def sync_all(self, folder: Path) -> None:
        """All that is in the folder has reached the disk: it was copied there long ago."""
        full, self.full = self.full, False
        for path in [*folder.iterdir(), folder]:
            descriptor = os.open(path, os.O_RDONLY)
            self.sync(descriptor)
            os.close(descriptor)
        self.full = full

    def cut_power(self, folder: Path) -> None:
        """Tear what was never synced to half its length, and undo the renames whose folder was not synced."""
        names = self._names.get(folder.stat().st_ino, {})
        for path in sorted(folder.iterdir()):
            status = path.stat()
            if ".safetensors" not in path.name:
                continue
            if (status.st_ino, status.st_mtime_ns) not in self._contents:
                os.truncate(path, status.st_size // 2)
            if names.get(path.name) != status.st_ino and path.suffix == ".safetensors":
                path.rename(f"{path}.part")
        for path in (folder / "parts").glob("*.body*"):  # nobody syncs these
            os.truncate(path, path.stat().st_size // 2)
