"""The log of a provisioned broker: a file of a bounded size that is written by nobody for somebody else."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from fedmq.broker_config.child import User
from fedmq.schemas.errors import ConfigError

__all__ = ["LogFile"]

_MAX_BYTES = 4 << 20
_MAX_READ_BYTES = 64 << 10


class LogFile:
    """A log that a child process appends to; open here too, by root perhaps, in a folder that is another user's.

    Args:
        path: the file, made if it is not there.
        user: whom it has to belong to; None for whoever can be written for.

    Raises:
        ConfigError: it cannot be opened, or is a link or another user's.

    """

    def __init__(self, path: Path, user: User | None = None) -> None:
        self.path = path
        try:
            self._descriptor = _opened(path, user)
        except OSError as error:
            raise ConfigError(
                f"{path}: it cannot be written: {error.strerror}; the broker's log is a file of its own, and no link"
            ) from error
        found = os.fstat(self._descriptor)
        # What a link of either kind leads to would be written by root for somebody who may not.
        if not stat.S_ISREG(found.st_mode) or (user is not None and found.st_uid != user.uid):
            self.close()
            raise ConfigError(
                f"{path}: it is not a file of the user whom its folder belongs to; remove it, the broker's log is made"
                " anew"
            )

    def fileno(self) -> int:
        """The open file, for a child to append to."""
        return self._descriptor

    @property
    def size(self) -> int:
        """Bytes in it."""
        return os.fstat(self._descriptor).st_size

    def since(self, position: int) -> list[str]:
        """The lines that have come since it had this size; at most 64 KiB of them."""
        return os.pread(self._descriptor, _MAX_READ_BYTES, position).decode(errors="replace").splitlines()

    def keep_newest(self) -> None:
        """Where it has outgrown 4 MiB, keep the newest half of that; what is written at this moment may be lost.

        Strangers decide how much is written: each attempt to connect is a line.
        """
        size = self.size
        if size <= _MAX_BYTES:
            return
        kept = os.pread(self._descriptor, _MAX_BYTES // 2, size - _MAX_BYTES // 2)
        os.ftruncate(self._descriptor, 0)
        # On a disk that is full the log is lost, and the broker goes on.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, kept.partition(b"\n")[2])

    def close(self) -> None:
        """A child that has it open goes on writing."""
        os.close(self._descriptor)


def _opened(path: Path, user: User | None) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    if user is not None:
        os.fchown(descriptor, *user)
    return descriptor
