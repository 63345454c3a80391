"""Which devices are out, as provisioning tells the aggregator."""

from __future__ import annotations

import logging
from pathlib import Path

from fedmq.schemas.errors import ConfigError
from fedmq.schemas.topics import check_id

__all__ = ["Revoked"]

log = logging.getLogger("fedmq.aggregator")


class Revoked:
    """The list of revoked devices in a file, an id in each line, read again whenever the file is another.

    Args:
        path: the file that `aggregator.revoked_file` names; None for a federation without one, where nobody is out.

    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._ids: frozenset[str] = frozenset()
        self._unread = ""  # why it could not be read last

    def ids(self) -> frozenset[str]:
        """Who is out now. Costs a look at the file's date unless it has changed.

        While the file cannot be read, or holds something else than ids, whoever was out is so still; the log says it.
        """
        if self._path is None:
            return self._ids
        try:
            state = self._path.stat()
            seen = (state.st_ino, state.st_mtime_ns, state.st_size)
            if seen != self._seen:
                lines = self._path.read_text(encoding="utf-8").splitlines()
                self._ids = frozenset(check_id(line.strip(), str(self._path)) for line in lines if line.strip())
                self._seen = seen
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            if str(error) != self._unread:
                log.error(
                    "aggregator.revoked_file: %s cannot be read (%s), so whoever was out is so still; `fedmq provision`"
                    " writes it", self._path, error,
                )  # fmt: skip
            self._unread = str(error)
        else:
            self._unread = ""
        return self._ids
