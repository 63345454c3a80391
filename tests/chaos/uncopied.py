"""The `fedmq` command as it works with a model of more than 32 MiB, on a disk that takes its time.

A thread writes the buffer where it lies, with no copy of it, and nothing may be done to it meanwhile.
"""

from __future__ import annotations

import random
import sys
import time

from fedmq.aggregator import writer
from fedmq.aggregator.store import Store
from fedmq.aggregator.vectors import to_disk
from fedmq.cli import main

_SYNC_SECONDS, _HANGS_SECONDS = 0.02, 1.5  # a commit has a few of them
_HANGS = 0.05  # how many do: longer than a buffer waits for updates


def _slowly(descriptor: int) -> None:
    time.sleep(_HANGS_SECONDS if random.random() < _HANGS else _SYNC_SECONDS)
    to_disk(descriptor)


if __name__ == "__main__":
    writer._AT_ONCE_BYTES = writer.LARGE_BYTES = -1  # type: ignore[attr-defined]
    defaults = Store.__init__.__kwdefaults__
    assert defaults is not None
    defaults["sync"] = _slowly
    sys.exit(main())
