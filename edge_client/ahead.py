"""What is large of the next update, written before the outbox adds it, by the thread that made it.

To write and sync a gigabyte takes longer than a broker waits for a sign of life. Nothing refers to these files until
the outbox's transaction does, which then moves no more than names: update and residual still change in one step.
"""

from __future__ import annotations

import json

import numpy as np

from fedmq.edge_client.bodies import BodyFiles
from fedmq.edge_client.feedback import Residual
from fedmq.schemas.errors import StoreError

__all__ = ["IN_A_FILE_BYTES", "Ahead"]

IN_A_FILE_BYTES = 1 << 20
"""What is larger has a file of its own."""


class Ahead:
    """The next update of an outbox, and what it leaves out.

    Args:
        where: whose it is, for errors.
        sequence: that it will have.
        residual_number: that its residual will have.
        bodies: files of updates; None keeps them in memory.
        residuals: files of residuals; None keeps them in memory.

    Attributes:
        body: the encoded update; empty if it lies in its file.
        residual: what is kept of the residual, run, layout, statistics and floats as JSON, and its bytes, empty if they
            lie in their file; None leaves the outbox's as it is.
        returned: sequence numbers of updates that did not count, and whose content is in this one.

    """

    def __init__(
        self,
        where: str,
        sequence: int,
        residual_number: int,
        bodies: BodyFiles | None = None,
        residuals: BodyFiles | None = None,
    ) -> None:
        self._where = where
        self.sequence = sequence
        self.residual_number = residual_number
        self.body: bytes | memoryview = b""
        self.residual: tuple[str, bytes | memoryview] | None = None
        self.returned: tuple[int, ...] = ()
        self._bodies = bodies
        self._residuals = residuals

    def write(self, body: bytes | memoryview, residual: Residual | None) -> None:
        """Keep them; large ones are on the disk then. From any thread.

        Raises:
            StoreError: the disk refuses, or the outbox was closed meanwhile.

        """
        try:
            self.body = _kept(self._bodies, self.sequence, body)
            if residual is None:
                return
            told = json.dumps([residual.run, residual.layout, residual.statistics, len(residual.left)])
            data = np.ascontiguousarray(residual.left, "<f4").view(np.uint8).data
            self.residual = told, _kept(self._residuals, self.residual_number, data)
            self.returned = residual.took
        except OSError as error:
            raise StoreError(f"{self._where}: {error}; is the disk full or read-only?") from error


def _kept(files: BodyFiles | None, number: int, data: bytes | memoryview) -> bytes | memoryview:
    if files is None or len(data) <= IN_A_FILE_BYTES:
        return data
    files.write(number, data)
    return b""
