"""Which devices are out, as provisioning tells the aggregator."""

from __future__ import annotations

from pathlib import Path

from fedmq.schemas.errors import ConfigError
from fedmq.schemas.topics import check_id

__all__ = ["Revoked"]


class Revoked:
    """The list of revoked devices in a file, an id in each line, read again whenever the file is another.

    Args:
        path: the file that `aggregator.revoked_file` names; None for a federation without one, where nobody is out.

    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._ids: frozenset[str] = frozenset()

    def ids(self) -> frozenset[str]:
        """Who is out now. Costs a look at the file's date unless it has changed.

        Raises:
            ConfigError: the file cannot be read, or holds something else than ids. Whoever was out is so still.

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
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"aggregator.revoked_file: {self._path} cannot be read ({error}); `fedmq provision` writes it"
            ) from error
        return self._ids
