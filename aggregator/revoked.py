"""Which devices are out, as provisioning tells the aggregator."""

from __future__ import annotations

import logging
from pathlib import Path

from fedmq.schemas.errors import ConfigError
from fedmq.schemas.topics import is_id

__all__ = ["Revoked"]

log = logging.getLogger("fedmq.aggregator")


class Revoked:
    """The list of revoked devices in a file, an id in each line, read again whenever the file is another.

    Whoever was out stays so until the aggregator is started again, whatever the file says: an id is never given again,
    so a file that has fewer was cut off on its way.

    Args:
        path: the file that `aggregator.revoked_file` names; None for a federation without one, where nobody is out.

    Raises:
        ConfigError: the file cannot be read, or holds something else than ids.

    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._ids: frozenset[str] = frozenset()
        self._seen: tuple[int, int, int] | None = None
        self._wrong = ""  # what is wrong with the file
        if wrong := self._look():
            raise ConfigError(
                f"aggregator.revoked_file: {path}: {wrong}; `fedmq provision` writes this file, empty if nobody is out"
            )

    def ids(self) -> frozenset[str]:
        """Who is out now. Costs a look at the file's date unless it has changed.

        What is wrong with the file by now is left out, and the log says it.
        """
        before, self._wrong = self._wrong, self._look()
        if self._wrong and self._wrong != before:
            log.error("aggregator.revoked_file: %s: %s; whoever was out is so still", self._path, self._wrong)
        return self._ids

    def _look(self) -> str:
        """Read the file if it is another; what is wrong with it, for people."""
        if self._path is None:
            return ""
        try:
            state = self._path.stat()
            seen = (state.st_ino, state.st_mtime_ns, state.st_size)
            if seen == self._seen:
                return self._wrong
            listed, wrong = _read(self._path)
        except OSError as error:
            self._seen = None
            return f"it cannot be read: {error.strerror}"
        missing = len(self._ids - listed)
        self._seen, self._ids = seen, self._ids | listed
        log.info("revoked devices=%d file=%s", len(self._ids), self._path)
        return wrong or (f"{missing} devices that were in it are not in it any more" if missing else "")


def _read(path: Path) -> tuple[frozenset[str], str]:
    """The ids in the file, and the first thing in it that is none."""
    *lines, rest = path.read_bytes().decode("utf-8", "replace").split("\n")
    found = [line.strip() for line in lines]
    wrong = [
        f"line {number}: found {line[:70]!r}, expected an id"
        for number, line in enumerate(found, 1)
        if line and not is_id(line)
    ]
    if rest.strip():
        # What is there may be the beginning of another device's id.
        wrong.append(f"line {len(lines) + 1}: found {rest[:70]!r} without an end of the line, as if it was cut off")
    return frozenset(filter(is_id, found)), wrong[0] if wrong else ""
