"""Clients that somebody lets out of quarantine: `fedmq release` leaves a file, the aggregator does it and removes it.

Whoever may write into the run's folder may do it, on this machine, and needs no way to the broker.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fedmq.schemas.topics import is_id

__all__ = ["Releases"]


class Releases:
    """The files, each named by a client.

    Args:
        folder: of the run; None if there is none.

    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / "release"

    def ask(self, client_id: str) -> Path:
        """Leave the wish; the file that is gone when it is done. Raises OSError."""
        assert self._folder is not None
        self._folder.mkdir(exist_ok=True)
        path = self._folder / client_id
        path.touch()
        return path

    def asked(self) -> list[str]:
        """Who is to be let out."""
        if self._folder is None:
            return []
        try:
            return [path.name for path in self._folder.iterdir() if is_id(path.name)]
        except OSError:  # it is not there before the first wish
            return []

    def done(self, client_ids: list[str]) -> None:
        """They are out, and that is on the disk."""
        for client_id in client_ids:
            if self._folder is not None:
                with suppress(OSError):  # then it is done once more
                    (self._folder / client_id).unlink()
