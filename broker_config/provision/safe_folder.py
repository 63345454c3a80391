"""Folders and files that are opened without going where somebody else leads.

A part of a provisioned folder may belong to another account: the broker's user owns `broker`, and may be broken into.
What he leaves there must not have root change, or copy to him, what is not his. So a path is walked folder by folder,
each opened from the one before, and a link is followed only where it and the folder that it lies in belong to root or
to who runs this. All else is done in the folder that is open then, wherever its path leads meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedmq.schemas.errors import ConfigError, StoreError

__all__ = ["check_folder", "open_file", "opened", "place_of", "without_links"]

# A folder on the way need not be readable.
_ON_THE_WAY: int = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
_MOST_LINKS = 40


def without_links(folder: Path) -> Path:
    """The same folder, by a path without links: whoever names a folder answers for those on the way to it."""
    real = Path(os.path.realpath(folder))
    return folder if real == Path(os.path.abspath(folder)) else real


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """The folder, open to be listed, changed and synced in.

    Raises:
        ConfigError: a link on the way is another account's.
        OSError: it is not there, or cannot be opened.

    """
    with _walked(folder, to_file=False) as (place, name):
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def place_of(path: Path) -> contextlib.AbstractContextManager[tuple[int, str]]:
    """The open folder that a file lies in, and its name there, which is no link; it need not exist.

    Raises what `opened` raises.
    """
    return _walked(path, to_file=True)


def open_file(folder: int, name: str, path: Path) -> int:
    """A file of an open folder, to be read or closed to others.

    Raises:
        ConfigError: it may be what somebody else has put there.
        OSError: it is not there, or cannot be opened.

    """
    # What is no file must not have anybody wait.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        _check_file(os.fstat(descriptor), folder, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_folder(folder: Path, names: Iterable[str] | None = None) -> None:
    """See whether the folder, or a file in it, may be what somebody else has put there.

    Args:
        folder: it need not exist.
        names: of files, which need not exist; all that there are if None, and what is no file is left alone then.

    Raises:
        ConfigError: so it may be.
        StoreError: it cannot be looked at.

    """
    try:
        with contextlib.suppress(FileNotFoundError), opened(folder) as descriptor:
            for name in os.listdir(descriptor) if names is None else names:
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if names is not None:
                        _link(descriptor, name, folder / name)
                    if stat.S_ISREG(found.st_mode):
                        _check_file(found, descriptor, folder / name)
    except OSError as error:
        raise StoreError(f"{folder}: it cannot be looked at: {error.strerror}") from error


@contextlib.contextmanager
def _walked(path: Path, *, to_file: bool) -> Iterator[tuple[int, str]]:
    """An open folder and a name in it: of a file, or `.` for the folder itself, which need not be readable."""
    ahead, links, shown = [*reversed(path.parts)], 0, Path()
    descriptor = os.open(path.anchor or ".", _ON_THE_WAY)
    try:
        while ahead:
            name = ahead.pop()
            shown /= name
            target = _link(descriptor, name, shown)
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                ahead += reversed(Path(target).parts)
                shown = shown.parent
            elif to_file and not ahead:
                break
            else:
                before, descriptor = descriptor, os.open(name, _ON_THE_WAY, dir_fd=descriptor)
                os.close(before)
        yield descriptor, name if to_file else "."
    finally:
        os.close(descriptor)


def _link(folder: int, name: str, path: Path) -> str | None:
    """What a link leads to, None for what is none; raises ConfigError for one that is not to be followed."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(found.st_mode):
        return None
    if not {found.st_uid, os.fstat(folder).st_uid} <= _ours():
        raise _not_ours(path, "a symbolic link", folder)
    return os.readlink(name, dir_fd=folder)


def _check_file(found: os.stat_result, folder: int, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    place = os.fstat(folder)
    if place.st_uid in _ours() and not place.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return  # nobody else can have put it there
    if found.st_uid not in {*_ours(), place.st_uid}:
        raise _not_ours(path, f"a file of user {found.st_uid}", folder)
    # His own with another name is still his, as where a backup has linked it; of another's that name may matter.
    if found.st_nlink > 1 and found.st_uid != place.st_uid:
        raise _not_ours(path, "a file that has another name too (a hard link)", folder)


def _ours() -> set[int]:
    return {0, os.geteuid()}


def _not_ours(path: Path, what: str, folder: int) -> ConfigError:
    return ConfigError(
        f"{path}: found {what}, expected a file or folder; the one that it is in belongs to user"
        f" {os.fstat(folder).st_uid}, who may have been broken into: look at it, remove it, and run this again"
    )
