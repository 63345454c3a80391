"""Who may read what is there: its owner only. What others could read is closed to them, and told."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from fedmq.broker_config.provision.safe_folder import open_file, opened
from fedmq.schemas.errors import StoreError

__all__ = ["FILE_MODE", "FOLDER_MODE", "close_up"]

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def close_up(folder: Path, names: Iterable[str] | None = None) -> list[Path]:
    """Take from others what rights they have on a folder and its files; those on which they had any.

    A symbolic link has no rights of its own, and what it leads to is left alone.

    Args:
        folder: it need not exist.
        names: of files, which need not exist; all that there are if None.

    Raises:
        ConfigError: one of them may be what somebody else has put there.
        StoreError: a mode cannot be changed.

    """
    found, path = [], folder
    try:
        with opened(folder) as descriptor:
            if _close(descriptor, FOLDER_MODE):
                found.append(path)
            for name in sorted(os.listdir(descriptor)) if names is None else names:
                path = folder / name
                if _close_file(descriptor, name, path):
                    found.append(path)
    except FileNotFoundError:
        return found
    except OSError as error:
        raise StoreError(f"{path}: its mode cannot be changed: {error.strerror}") from error
    return found


def _close_file(folder: int, name: str, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o777 != FILE_MODE:
            descriptor = open_file(folder, name, path)
            try:
                return _close(descriptor, FILE_MODE)
            finally:
                os.close(descriptor)
    return False


def _close(descriptor: int, wanted: int) -> bool:
    """Give what is open this mode; whether others had rights on it."""
    mode = os.fstat(descriptor).st_mode & 0o777
    if mode != wanted:
        os.fchmod(descriptor, wanted)
    return bool(mode & 0o077)
