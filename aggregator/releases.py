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
        self._taken: list[str] = []  # who is out, and in no commit yet
        self._committing: list[str] = []  # who is in the commit that is being written

    def ask(self, client_id: str) -> Path:
        """Leave the wish; the file that is gone when it is done. Raises OSError."""
        assert self._folder is not None
        self._folder.mkdir(exist_ok=True)
        path = self._folder / client_id
        path.touch()
        return path

    def take(self) -> list[str]:
        """Who is to be let out, and was not taken before."""
        if self._folder is None:
            return []
        try:
            names = [path.name for path in self._folder.iterdir() if is_id(path.name)]
        except OSError:  # it is not there before the first wish
            return []
        asked = [name for name in names if name not in self._taken and name not in self._committing]
        self._taken += asked
        return asked

    def committing(self) -> None:
        """That all who were taken are out is in the commit that begins."""
        self._committing += self._taken
        self._taken = []

    def committed(self) -> None:
        """The commit that had begun is on the disk: those wishes are done."""
        for client_id in self._committing:
            assert self._folder is not None
            with suppress(OSError):  # then it is done once more
                (self._folder / client_id).unlink()
        self._committing = []

    def forget(self) -> None:
        """What is in no commit did not happen: those wishes are taken again."""
        self._taken, self._committing = [], []
