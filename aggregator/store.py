"""The run's folder, and the only thing that writes to it: a commit is all of the state or nothing of it.

Vectors are safetensors files, written aside, synced and renamed; what refers to them is a SQLite database. Its
transaction comes last, so a crash at any instant leaves either the old state or the new one.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fedmq.aggregator.buffer import Buffer
from fedmq.aggregator.state import News, State
from fedmq.aggregator.tables import Tables
from fedmq.schemas.errors import StoreError
from fedmq.schemas.layout import Layout, Vector

__all__ = ["FORMAT", "Store"]

FORMAT = 1


class Store:
    """One run's folder, locked for as long as this is open.

    Raises:
        StoreError: the folder cannot be written, another aggregator holds it, or it is of a newer format or another
            federation. It stays as it was.

    """

    def __init__(self, folder: Path, federation: str) -> None:
        self.folder = folder
        self._lock = _locked(folder)
        try:
            with self._translated():
                self._tables = Tables(folder / "run.sqlite")
        except StoreError:
            self._lock.close()
            raise
        try:
            with self._translated():
                self._claim(federation)
                self._vectors_file: str | None = self._tables.get("vectors")
        except StoreError:
            self.close()
            raise
        self._written: tuple[int, int] | None = None  # version and updates in the buffer of the vectors on disk

    def layout(self) -> Layout | None:
        """The layout of the run in this folder; None in a new folder."""
        with self._translated():
            encoded = self._tables.get("layout")
        return Layout.decode(bytes.fromhex(encoded)) if encoded else None

    def load(self, layout: Layout) -> State | None:
        """The state as of the last commit; None in a new folder.

        Raises:
            StoreError: the run has another layout, or files of it are missing or damaged.

        """
        stored = self.layout()
        if stored is None or self._vectors_file is None:
            return None
        difference = layout.difference(stored)
        if difference:
            raise StoreError(
                f"run folder {self.folder}: its model is not the one that the task builds: {difference} in the folder;"
                " choose another folder, or put the old model back"
            )
        with self._translated():
            saved = self._tables.get("state")
            vectors = self._read(self._vectors_file)
            state = State(saved["run"], layout, vectors["weights"], Buffer(vectors["buffer"]))
            state.velocity = vectors.get("velocity")
            state.bases = {version: self._read(f"base-{version}.safetensors")["weights"] for version in saved["bases"]}
            self._tables.restore(state)
            self._collect(state)
        return state

    def commit(self, state: State, news: News) -> None:
        """Make the state durable, with what is new since the last commit.

        Raises:
            StoreError: nothing was committed. What is in memory has to be forgotten.

        """
        vectors_file = self._vectors_file
        stamp = (state.version, len(state.buffer.updates))
        try:
            if vectors_file is None or self._written != stamp:
                vectors_file = self._write_vectors(state, vectors_file)
            for version, base in state.bases.items():
                if not (self.folder / f"base-{version}.safetensors").exists():
                    self._write(f"base-{version}.safetensors", {"weights": base})
            with self._tables.transaction():
                if self._vectors_file is None:
                    self._tables.set("layout", state.layout.encoded.hex())
                self._tables.set("vectors", vectors_file)
                self._tables.write(state, news)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"run folder {self.folder}: the commit failed: {error}; is the disk full?") from error
        changed = vectors_file != self._vectors_file
        self._vectors_file, self._written = vectors_file, stamp
        if changed:
            self._collect(state)

    def history(self) -> Iterator[dict[str, Any]]:
        """How each version came to be, oldest first, with what was measured of it."""
        with self._translated():
            yield from self._tables.history()

    def close(self) -> None:
        """Let the folder go."""
        self._tables.close()
        self._lock.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"run folder {self.folder}: run.sqlite cannot be used: {error}") from error

    def _claim(self, federation: str) -> None:
        found, theirs = self._tables.get("format"), self._tables.get("federation")
        if found is None:
            with self._tables.transaction():
                self._tables.set("federation", federation)
                self._tables.set("format", FORMAT)
        elif found > FORMAT:
            raise StoreError(f"run folder {self.folder}: format {found}, this FedMQ reads up to {FORMAT}; update FedMQ")
        elif theirs != federation:
            raise StoreError(
                f"run folder {self.folder}: of federation {theirs!r}, expected {federation!r}; choose another folder"
            )

    def _collect(self, state: State) -> None:
        """Remove the files that nothing refers to any more."""
        kept = {self._vectors_file, *(f"base-{version}.safetensors" for version in state.bases)}
        for path in self.folder.iterdir():
            ours = re.fullmatch(r"(vectors|base)-\d+\.safetensors(\.part)?", path.name)
            if ours and path.name not in kept:
                path.unlink(missing_ok=True)

    def _write_vectors(self, state: State, previous: str | None) -> str:
        number = int(re.sub(r"\D", "", previous)) if previous else 0
        vectors = {"weights": state.weights, "buffer": state.buffer.total}
        if state.velocity is not None:
            vectors["velocity"] = state.velocity
        name = f"vectors-{number + 1}.safetensors"
        self._write(name, vectors)
        return name

    def _write(self, name: str, vectors: dict[str, Vector]) -> None:
        aside = self.folder / f"{name}.part"
        with open(aside, "wb") as file:
            file.write(save(vectors))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, name: str) -> dict[str, Vector]:
        try:
            return {key: np.array(array, np.float32) for key, array in load_file(self.folder / name).items()}
        except (OSError, SafetensorError) as error:
            raise StoreError(f"run folder {self.folder}: {name} cannot be read: {error}; take a copy of it") from error


def _locked(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "a+")  # noqa: SIM115 (held until the store is closed)
    except OSError as error:
        raise StoreError(f"run folder {folder}: {error.strerror}; choose another with [aggregator] folder") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise StoreError(f"run folder {folder}: an aggregator (process {holder}) works in it; stop that one") from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
