"""A body that comes in parts, on the disk until it is whole: a file of its bytes, and a list of those that are there.

Nothing here is synced. After a crash each part that the list names is compared with its digest, and what did not reach
the disk is missing again.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from fedmq.schemas.errors import StoreError
from fedmq.schemas.parts import Coverage

__all__ = ["Spool"]

_CHECK_BYTES = 16  # of a part's SHA-256


class _Part(NamedTuple):
    offset: int
    length: int
    check: str


class Spool:
    """One body in parts.

    Args:
        path: of the file; its list lies beside it, with `.parts` behind the name.
        key: what body it is. What is there of another one goes.
        size: of the body, in bytes.

    Attributes:
        coverage: the bytes that are there.

    Raises:
        StoreError: the disk refuses.

    """

    def __init__(self, path: Path, key: str, size: int) -> None:
        self.key = key
        self.coverage = Coverage(size)
        self._path = path
        self._list_path = path.with_name(path.name + ".parts")
        self._head = json.dumps({"key": key, "size": size})
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            noted = self._noted()
            if not noted:
                path.unlink(missing_ok=True)  # somebody may still hold a view of what was in it
            self._file: IO[bytes] = open(path, "r+b" if noted else "w+b", buffering=0)  # noqa: SIM115
            there = [part for part in noted if self._is_there(part)]
            # Written anew, without the line that a crash may have cut in two.
            self._list = open(self._list_path, "w", encoding="utf-8")  # noqa: SIM115
            self._note(self._head, *(json.dumps(part) for part in there))
        for offset, length, _ in there:
            self.coverage.add(offset, offset + length)

    def write(self, offset: int, data: memoryview) -> None:
        """Keep a part.

        Raises:
            StoreError: the disk refuses; the part is missing still.

        """
        with self._translated():
            if os.pwrite(self._file.fileno(), data, offset) != len(data):
                raise OSError("a part was not written whole")
            self._note(json.dumps(_Part(offset, len(data), _check(data))))
        self.coverage.add(offset, offset + len(data))

    def view(self) -> memoryview:
        """The bytes, from the file as they are needed; only of a body that is complete."""
        if not self.coverage.size:
            return memoryview(b"")
        with self._translated():
            return memoryview(mmap.mmap(self._file.fileno(), self.coverage.size, prot=mmap.PROT_READ))

    def close(self) -> None:
        """Let the files be."""
        self._file.close()
        self._list.close()

    def remove(self) -> None:
        """Remove the files. A view that is still held stays good."""
        self._path.unlink(missing_ok=True)
        self._list_path.unlink(missing_ok=True)

    def _noted(self) -> list[_Part]:
        """The parts of this body that its list names; none if the list is another body's."""
        if not self._path.exists() or not self._list_path.exists():
            return []
        head, *lines = self._list_path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        parts = []
        for line in lines if head == self._head else []:
            try:
                offset, length, check = json.loads(line)
                parts.append(_Part(int(offset), int(length), str(check)))
            except (TypeError, ValueError):
                break  # a crash cut it
        return parts

    def _is_there(self, part: _Part) -> bool:
        return part.offset >= 0 and _check(os.pread(self._file.fileno(), part.length, part.offset)) == part.check

    def _note(self, *lines: str) -> None:
        self._list.writelines(line + "\n" for line in lines)
        self._list.flush()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self._path}: a part cannot be kept: {error}") from error


def _check(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[: 2 * _CHECK_BYTES]
