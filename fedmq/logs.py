"""Logs as structured lines on standard error: time, level, who, event, key=value."""

from __future__ import annotations

import logging
import sys
import time

__all__ = ["log_to_stderr"]


class _Formatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(levelname)-7s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime  # devices stand in many time zones

    def formatException(self, ei: object) -> str:  # noqa: N802 (logging's name)
        # One line for each record, whatever broke: what reads logs reads lines.
        return super().formatException(ei).replace("\n", "\n    ")  # type: ignore[arg-type]


def log_to_stderr(level: str = "info") -> None:
    """Send FedMQ's logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("fedmq")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
