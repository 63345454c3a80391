"""Logs as structured lines on standard error: time, level, who, event, key=value."""

from __future__ import annotations

import logging
import sys
import time

from fedmq.printable import printable

__all__ = ["log_to_stderr"]


_AGAIN_SECONDS = 60.0
_REMEMBERED = 32  # texts


class _Formatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(levelname)-7s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime  # devices stand in many time zones

    # One line for each record, whatever was heard and whatever broke: what reads logs reads lines. So no text of a
    # peer's can look like a record, and no name of a topic can tell the terminal what to do.

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n    ".join(map(printable, text.split("\n")))


class _Seldom(logging.Filter):
    """Says the same warning again only once a minute, with how often it was: a broker that is away is tried for hours.

    Whoever connects in between says so, and then the same trouble is news again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], tuple[float, int]] = {}  # by logger and text: when it was said, how often not

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            if str(record.msg).startswith("connected "):
                self._last = {key: last for key, last in self._last.items() if key[0] != record.name}
            return True
        text = record.getMessage()
        key = (record.name, text)
        said_at, unsaid = self._last.pop(key, (-_AGAIN_SECONDS, 0))
        if record.exc_info is None and record.created - said_at < _AGAIN_SECONDS:
            self._last[key] = (said_at, unsaid + 1)
            return False
        self._last[key] = (record.created, 0)
        while len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]
        if unsaid:
            record.msg, record.args = f"{text} (again, {unsaid + 1} times since it was last said)", ()
        return True


def log_to_stderr(level: str = "info") -> None:
    """Send FedMQ's logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    handler.addFilter(_Seldom())
    logger = logging.getLogger("fedmq")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
