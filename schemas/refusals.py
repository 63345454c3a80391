"""What the system refuses of a file or folder: for how long, and in what words."""

from __future__ import annotations

import errno

from fedmq.schemas.errors import StoreError, UnusableError

__all__ = ["kind_of", "refused"]

# Nobody but people changes that.
_LASTING = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.ENOENT, errno.ENAMETOOLONG),
}
_WORDS = {errno.EEXIST: "it is a file and no folder", errno.ENOTDIR: "a part of this path is a file and no folder"}


def kind_of(error: OSError) -> type[StoreError]:
    """What to raise for a path that somebody chose: `UnusableError` if a second try would end in the same way."""
    return UnusableError if error.errno in _LASTING else StoreError


def refused(folder: str, error: OSError, advice: str) -> StoreError:
    """What to raise for a folder that cannot be made or written.

    Args:
        folder: as the sentence begins.
        error: the system's.
        advice: what to do.

    """
    why = _WORDS.get(error.errno or 0) or error.strerror or error
    return kind_of(error)(f"{folder}: {why}; {advice}")
