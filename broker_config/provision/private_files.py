"""Files that only their owner may read, written so that a crash leaves the old one or the new one.

What root makes in a folder belongs to the folder's owner: a broker that runs as a user of its own, who was given its
folder, has to be able to read what is changed there later.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fedmq.schemas.errors import ConfigError, StoreError

__all__ = [
    "alone_in",
    "close_up",
    "make_folder",
    "read_private",
    "remove_files",
    "remove_unfinished",
    "write_folder",
    "write_private",
]

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_ASIDE = ".part"


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder if it is not there, and keep every other process that does this out of it.

    Raises:
        ConfigError: another process is at work there, or it cannot be made.

    """
    try:
        _make(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{folder}: it cannot be used as a folder: {error.strerror}; choose another") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(f"{folder}: another process is at work in it; wait for its end") from error
    try:
        yield
    finally:
        os.close(descriptor)


def read_private(path: Path) -> bytes | None:
    """The file's content, None if there is none; raises StoreError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: it cannot be read: {error.strerror}") from error


def write_private(path: Path, content: bytes) -> bool:
    """Give the file this content, mode 0600, in one step; whether anything was different before.

    Its folder is made, mode 0700, if it is not there. Raises StoreError if the disk does not take it.
    """
    try:
        if read_private(path) == content and not _strange(path.lstat(), path.parent):
            return False
        _make_within(path.parent)
        aside = _aside(path)
        _write(aside, content)
        os.replace(aside, path)
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: it cannot be written: {error.strerror}") from error
    return True


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a new folder with these files, all at once; raises StoreError if the disk does not take it."""
    aside = _aside(folder)
    try:
        _make_within(folder.parent)
        shutil.rmtree(aside, ignore_errors=True)  # of a run that did not come to its end
        aside.mkdir(mode=_FOLDER_MODE)
        _give_folder(aside)
        for name, content in files.items():
            _write(aside / name, content)
        _sync(aside)
        os.rename(aside, folder)
        _sync(folder.parent)
    except OSError as error:
        raise StoreError(f"{folder}: it cannot be made: {error.strerror}") from error


def remove_files(folder: Path, names: Iterable[str]) -> bool:
    """Remove these files, and the folder if nothing else is in it; whether there was anything to remove."""
    removed = False
    try:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
                removed = True
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            _sync(folder.parent)
    except OSError as error:
        raise StoreError(f"{folder}: what is in it cannot be removed: {error.strerror}") from error
    return removed


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove what a process that was killed has left of these files and folders, which it did not finish.

    Raises StoreError if that cannot be.
    """
    for aside in map(_aside, paths):
        try:
            if aside.is_dir() and not aside.is_symlink():
                shutil.rmtree(aside)
            elif os.path.lexists(aside):
                aside.unlink()
        except OSError as error:
            raise StoreError(f"{aside}: it cannot be removed: {error.strerror}") from error


def close_up(paths: Iterable[Path]) -> list[Path]:
    """Take from others what rights they have on these files and folders; those on which they had any.

    A symbolic link has no rights of its own, and what it leads to is left alone.
    """
    opened = []
    for path in paths:
        try:
            if path.is_symlink():
                continue
            mode = path.stat().st_mode & 0o777
            wanted = _FOLDER_MODE if path.is_dir() else _FILE_MODE
            if mode != wanted:
                path.chmod(wanted)
            if mode & 0o077:
                opened.append(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"{path}: its mode cannot be changed to {wanted:o}: {error.strerror}") from error
    return opened


def make_folder(folder: Path) -> None:
    """Make a folder, mode 0700, if it is not there; raises StoreError if the disk does not take it."""
    try:
        _make_within(folder)
    except OSError as error:
        raise StoreError(f"{folder}: it cannot be made: {error.strerror}") from error


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}{_ASIDE}")


def _make(folder: Path) -> None:
    """Make the folder and those above it; those that are there keep their modes."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE)
        _sync(folder.parent)


def _make_within(folder: Path) -> None:
    """The same for what lies within a folder of ours; it is given away as files are."""
    if not folder.is_dir():
        _make_within(folder.parent)
        _make(folder)
        _give_folder(folder)


def _write(path: Path, content: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    with open(descriptor, "wb") as file:
        _give(file.fileno(), path.parent)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _give_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _give(descriptor, folder.parent)
    finally:
        os.close(descriptor)


def _give(descriptor: int, folder: Path) -> None:
    """Where this is root, give what is open here to whom the folder belongs."""
    if _strange(os.fstat(descriptor), folder):
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _strange(found: os.stat_result, folder: Path) -> bool:
    """Whether this is root, who can change it, and this does not belong to whom the folder belongs."""
    if os.geteuid() != 0:
        return False
    owner = folder.stat()
    return (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
