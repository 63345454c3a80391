"""Files that only their owner may read, written so that a crash leaves the old one or the new one.

What root makes in a folder belongs to the folder's owner: a broker that runs as a user of its own, who was given its
folder, has to be able to read what is changed there later. Nothing here follows a link of his; see `safe_folder`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fedmq.broker_config.provision.closing import FILE_MODE, FOLDER_MODE
from fedmq.broker_config.provision.safe_folder import open_file, opened, place_of
from fedmq.schemas.errors import ConfigError, StoreError

__all__ = [
    "alone_in",
    "make_folder",
    "read_private",
    "remove_files",
    "remove_unfinished",
    "write_folder",
    "write_private",
]

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
    """The file's content, None if there is none.

    Raises:
        ConfigError: it may be what somebody else has put there.
        StoreError: it cannot be read.

    """
    try:
        with place_of(path) as (folder, name), open(open_file(folder, name, path), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: it cannot be read: {error.strerror}") from error


def write_private(path: Path, content: bytes) -> bool:
    """Give the file this content, mode 0600, in one step; whether anything was different before.

    Its folder is made, mode 0700, if it is not there. Raises StoreError if the disk does not take it, ConfigError if a
    link of somebody else is on the way; one in its place is replaced.
    """
    try:
        _make_within(path.parent)
        with opened(path.parent) as folder:
            if _holds(folder, path, content):
                return False
            aside = _aside(path.name)
            _write(folder, aside, content)
            os.replace(aside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
    except OSError as error:
        raise StoreError(f"{path}: it cannot be written: {error.strerror}") from error
    return True


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a new folder with these files, all at once; raises what `write_private` raises."""
    aside = _aside(folder.name)
    try:
        _make_within(folder.parent)
        with opened(folder.parent) as parent:
            shutil.rmtree(aside, ignore_errors=True, dir_fd=parent)  # of a run that did not come to its end
            with _made(parent, aside) as made:
                for name, content in files.items():
                    _write(made, name, content)
                os.fsync(made)
            os.rename(aside, folder.name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
    except OSError as error:
        raise StoreError(f"{folder}: it cannot be made: {error.strerror}") from error


def remove_files(folder: Path, names: Iterable[str]) -> bool:
    """Remove these files, and the folder if nothing else is in it; whether there was anything to remove."""
    removed = False
    try:
        with opened(folder) as descriptor:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=descriptor)
                    removed = True
            left = os.listdir(descriptor)
        if not left:
            with opened(folder.parent) as parent:
                os.rmdir(folder.name, dir_fd=parent)
                os.fsync(parent)
    except FileNotFoundError:
        return removed
    except OSError as error:
        raise StoreError(f"{folder}: what is in it cannot be removed: {error.strerror}") from error
    return removed


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove what a process that was killed has left of these files and folders, which it did not finish.

    Raises StoreError if that cannot be.
    """
    for aside in (path.with_name(_aside(path.name)) for path in paths):
        if not os.path.lexists(aside):
            continue
        try:
            with opened(aside.parent) as folder:
                if stat.S_ISDIR(os.stat(aside.name, dir_fd=folder, follow_symlinks=False).st_mode):
                    shutil.rmtree(aside.name, dir_fd=folder)
                else:
                    os.unlink(aside.name, dir_fd=folder)
        except OSError as error:
            raise StoreError(f"{aside}: it cannot be removed: {error.strerror}") from error


def make_folder(folder: Path) -> None:
    """Make a folder, mode 0700, if it is not there; raises what `write_private` raises."""
    try:
        _make_within(folder)
    except OSError as error:
        raise StoreError(f"{folder}: it cannot be made: {error.strerror}") from error


def _aside(name: str) -> str:
    return f".{name}{_ASIDE}"


def _make(folder: Path) -> None:
    """Make the folder and those above it; those that are there keep their modes."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=FOLDER_MODE)
        with opened(folder.parent) as parent:
            os.fsync(parent)


def _make_within(folder: Path) -> None:
    """The same for what lies within a folder of ours; it is given away as files are."""
    try:
        with opened(folder):
            return
    except FileNotFoundError:
        _make_within(folder.parent)
    with opened(folder.parent) as parent, _made(parent, folder.name):
        os.fsync(parent)


@contextlib.contextmanager
def _made(parent: int, name: str) -> Iterator[int]:
    """A new folder in an open one, open too."""
    os.mkdir(name, FOLDER_MODE, dir_fd=parent)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        _give(descriptor, parent)
        yield descriptor
    finally:
        os.close(descriptor)


def _write(folder: int, name: str, content: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=folder)
    with open(descriptor, "wb") as file:
        _give(file.fileno(), folder)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _holds(folder: int, path: Path, content: bytes) -> bool:
    """Whether the file is as it would be written; what somebody else has put in its place is not."""
    with contextlib.suppress(FileNotFoundError, ConfigError):
        found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        return not _strange(found, folder) and read_private(path) == content
    return False


def _give(descriptor: int, folder: int) -> None:
    """Where this is root, give what is open here to whom the folder belongs."""
    if _strange(os.fstat(descriptor), folder):
        owner = os.fstat(folder)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _strange(found: os.stat_result, folder: int) -> bool:
    """Whether this is root, who can change it, and this does not belong to whom the folder belongs."""
    if os.geteuid() != 0:
        return False
    owner = os.fstat(folder)
    return (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid)
