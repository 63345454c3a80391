"""A body that comes in parts, until it is whole: in a file beside a list of what is there, or in memory.

Nothing here is synced. After a crash each part that the list names is compared with its checksum, and what did not
reach the disk is missing again.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from fedmq.schemas.errors import StoreError
from fedmq.schemas.parts import Coverage

__all__ = ["FileSpool", "MemorySpool", "Spool", "key_of", "remove"]

_READ_BYTES = 1 << 20


class Spool(Protocol):
    """One body in parts. Each byte is as it came first; `digest` and `view` are only of a body that is complete.

    Attributes:
        coverage: the bytes that are there.

    """

    coverage: Coverage

    def write(self, offset: int, data: memoryview) -> None:
        """Keep a part. Raises StoreError: the disk refuses, and the part is missing still."""

    def digest(self) -> str:
        """The SHA-256 of the bytes, in hex. Raises StoreError: the disk refuses."""

    def view(self) -> memoryview:
        """The bytes. Raises StoreError: the disk refuses."""

    def close(self) -> None:
        """Let it be, for a later process if it is on the disk."""

    def remove(self) -> None:
        """Remove it. A view that is still held stays good."""


class MemorySpool:
    """A body in memory."""

    def __init__(self, size: int) -> None:
        self.coverage = Coverage(size)
        self._bytes = bytearray(size)

    def write(self, offset: int, data: memoryview) -> None:
        """Keep a part."""
        for start, end in self.coverage.lacks(offset, offset + len(data)):
            self._bytes[start:end] = data[start - offset : end - offset]
        self.coverage.add(offset, offset + len(data))

    def digest(self) -> str:
        """The SHA-256 of the bytes, in hex."""
        return hashlib.sha256(self._bytes).hexdigest()

    def view(self) -> memoryview:
        """The bytes."""
        return memoryview(self._bytes).toreadonly()

    def move(self, spool: Spool) -> None:
        """Write what is here into another. Raises StoreError: the disk refuses."""
        for start, end in self.coverage.there():
            for offset in range(start, end, _READ_BYTES):
                spool.write(offset, self.view()[offset : min(offset + _READ_BYTES, end)])

    def close(self) -> None:
        """Nothing stays."""

    def remove(self) -> None:
        """Nothing stays."""


class _Part(NamedTuple):
    offset: int
    length: int
    check: int


class FileSpool:
    """A body in a file, with which a later process goes on.

    Args:
        path: of the file; its list lies beside it, with `.parts` behind the name.
        key: what body it is. What is there of another one goes.
        size: of the body, in bytes.
        wanted: asked before each part that is read again; if not, it is given up.

    Attributes:
        path: of the file.
        coverage: the bytes that are there.

    Raises:
        StoreError: the disk refuses, or it is not wanted any more.

    """

    def __init__(self, path: Path, key: str, size: int, *, wanted: Callable[[], bool] = lambda: True) -> None:
        self.key = key
        self.coverage = Coverage(size)
        self._sha256 = hashlib.sha256()  # of the bytes before `_hashed`
        self._hashed = 0
        self.path = path
        self._list_path = _list_of(path)
        self._head = json.dumps({"key": key, "size": size})
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            noted = self._noted()
            if not noted:
                path.unlink(missing_ok=True)  # somebody may still hold a view of what was in it
            self._file: IO[bytes] = open(path, "r+b" if noted else "w+b", buffering=0)  # noqa: SIM115
            try:
                there = []
                for part in noted:
                    if not wanted():
                        raise OSError("nobody waits for it any more")
                    if self._is_there(part):
                        there.append(part)
                # Written anew, without the line that a crash may have cut in two. Not buffered: what a full disk did
                # not take would be tried again when it is closed.
                self._list: IO[bytes] = open(self._list_path, "wb", buffering=0)  # noqa: SIM115
                self._note("\n".join([self._head, *map(json.dumps, there)]))
            except OSError:
                self._file.close()
                raise
        for offset, length, _ in there:
            self.coverage.add(offset, offset + length)

    def write(self, offset: int, data: memoryview) -> None:
        """Keep a part. Raises StoreError: the disk refuses, and the part is missing still."""
        for start, end in self.coverage.lacks(offset, offset + len(data)):
            self._write(start, data[start - offset : end - offset])

    def _write(self, offset: int, data: memoryview) -> None:
        with self._translated():
            if os.pwrite(self._file.fileno(), data, offset) != len(data):
                raise OSError("a part was not written whole")
            # With its end of line before it, so that a line that was cut does not spoil the next.
            self._note("\n" + json.dumps(_Part(offset, len(data), _check(data))))
        self.coverage.add(offset, offset + len(data))
        if offset == self._hashed:  # while it is in the processor's cache
            self._sha256.update(data)
            self._hashed += len(data)
        else:  # parts came in another order, or were here from before: so that little is left for the end
            self._hash(min(self._hashed + _READ_BYTES, self.coverage.first_missing))

    def digest(self) -> str:
        """The SHA-256 of the bytes, in hex. Raises StoreError: the disk refuses."""
        self._hash(self.coverage.size)
        return self._sha256.hexdigest()

    def _hash(self, end: int) -> None:
        with self._translated():
            while self._hashed < end:
                data = os.pread(self._file.fileno(), min(_READ_BYTES, end - self._hashed), self._hashed)
                if not data:
                    raise OSError("the file has become shorter")
                self._sha256.update(data)
                self._hashed += len(data)

    def view(self) -> memoryview:
        """The bytes, from the file as they are needed. Raises StoreError: the disk refuses."""
        if not self.coverage.size:
            return memoryview(b"")
        with self._translated():
            return memoryview(mmap.mmap(self._file.fileno(), self.coverage.size, prot=mmap.PROT_READ))

    def close(self) -> None:
        """Let the files be."""
        for file in (self._file, self._list):
            with suppress(OSError):
                file.close()

    def remove(self) -> None:
        """Remove the files, as far as the disk has them removed. A view that is still held stays good."""
        remove(self.path)

    def _noted(self) -> list[_Part]:
        """The parts of this body that its list names; none if the list is another body's."""
        if not self.path.exists() or not self._list_path.exists():
            return []
        head, *lines = self._list_path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        parts = []
        for line in lines if head == self._head else []:
            try:
                offset, length, check = json.loads(line)
                parts.append(_Part(int(offset), int(length), int(check)))
            except (TypeError, ValueError):
                continue  # a crash or a full disk cut it
        return parts

    def _is_there(self, part: _Part) -> bool:
        return part.offset >= 0 and _check(os.pread(self._file.fileno(), part.length, part.offset)) == part.check

    def _note(self, text: str) -> None:
        data = text.encode()
        if self._list.write(data) != len(data):
            raise OSError("the list of parts was not written whole")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.path}: a part cannot be kept: {error}") from error


def remove(path: Path) -> None:
    """Remove the file at this path and its list, as far as the disk has them removed."""
    for each in (path, _list_of(path)):
        with suppress(OSError):
            each.unlink(missing_ok=True)


def key_of(path: Path) -> str:
    """Of what body the file at this path has parts; empty if nothing says so."""
    try:
        with open(_list_of(path), encoding="utf-8") as lines:
            return str(json.loads(lines.readline())["key"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _list_of(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


def _check(data: bytes | memoryview) -> int:
    # Against a crash and a bad disk, not against people: whoever takes the whole body compares its SHA-256.
    return zlib.crc32(data)
