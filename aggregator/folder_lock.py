"""One aggregator at a time in a run's folder: a lock that the kernel lets go of with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from fedmq.schemas.errors import StoreError
from fedmq.schemas.refusals import refused

__all__ = ["locked"]


def locked(folder: Path) -> IO[str]:
    """The folder's lock, held until it is closed; the folder is made if it is not there.

    Raises:
        UnusableError: it cannot be written, until somebody changes that.
        StoreError: it cannot be written now, or another aggregator holds it.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "a+")  # noqa: SIM115 (held until the store is closed)
    except OSError as error:
        raise refused(f"run folder {folder}", error, "choose another with [aggregator] folder") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise StoreError(f"run folder {folder}: an aggregator (process {holder}) works in it; stop that one") from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
