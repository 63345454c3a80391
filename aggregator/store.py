"""The run's folder, and the only thing that writes to it: a commit is all of the state or nothing of it.

Vectors are safetensors files; what refers to them is a SQLite database. Its transaction comes last, so a crash at any
instant leaves either the old state or the new one.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedmq.aggregator.buffer import Buffer
from fedmq.aggregator.folder_lock import locked
from fedmq.aggregator.ledger_rows import Statement
from fedmq.aggregator.state import News, State
from fedmq.aggregator.tables import Tables
from fedmq.aggregator.vectors import Step, Sync, nothing, read_vectors, to_disk, write_files
from fedmq.schemas.errors import StoreError, UnusableError
from fedmq.schemas.layout import Layout, Vector

__all__ = ["FORMAT", "Commit", "Store"]

FORMAT = 4


@dataclass(frozen=True, slots=True)
class _Files:
    """The files that a state consists of, beside its rows; a buffer with nothing in it has none."""

    weights: str | None = None
    buffer: str | None = None
    rows: tuple[str, ...] = ()  # of the buffer, in order; each is written once
    bases: dict[int, str] = field(default_factory=dict)
    number: int = 0  # of the newest; none is used twice

    def names(self) -> set[str]:
        return {name for name in (self.weights, self.buffer, *self.rows, *self.bases.values()) if name is not None}


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit writes, as of one moment.

    Attributes:
        files: vectors by file and name; the state's own, or copies.
        statements: rows.

    """

    files: dict[str, dict[str, Vector]]
    statements: list[Statement]
    refers: _Files
    version: int
    buffered: int


class Store:
    """One run's folder, locked for as long as this is open.

    Args:
        folder: of the run; made if it is not there.
        federation: whose run it is.
        step: called between the steps of a commit.
        sync: in place of os.fsync, for files of vectors.

    Raises:
        UnusableError: the folder cannot be written until somebody changes that, or it is of a newer format or another
            federation. It stays as it was.
        StoreError: it cannot be written now, or another aggregator holds it.

    """

    def __init__(self, folder: Path, federation: str, *, step: Step = nothing, sync: Sync = to_disk) -> None:
        self.folder = folder
        self._federation = federation
        self._files = _Files()
        self._written: tuple[int, int] | None = None  # version and updates in the buffer of the vectors on disk
        self._anew = False
        self._step = step
        self._sync = sync
        self._lock = locked(folder)
        try:
            self._open()
        except StoreError:
            self._lock.close()
            raise

    def layout(self) -> Layout | None:
        """The layout of the run in this folder; None in a new folder."""
        with self._translated():
            encoded = self._tables.get("layout")
        return Layout.decode(bytes.fromhex(encoded)) if encoded else None

    def predecessors(self, incarnation: str) -> frozenset[str]:
        """The aggregators that have worked in this folder, the last 64; `incarnation` is the next of them."""
        with self._translated():
            known = self._tables.get("incarnations") or []
            with self._tables.transaction():
                self._tables.write([self._tables.keep("incarnations", [*known, incarnation][-64:])])
        return frozenset(known)

    def last_strategy(self, described: str) -> str | None:
        """The strategy of the last start in this folder, None before the first; `described` is that of this one."""
        with self._translated():
            last: str | None = self._tables.get("strategy")
            if last != described:
                with self._tables.transaction():
                    self._tables.write([self._tables.keep("strategy", described)])
        return last

    def load(self, layout: Layout, *, again: bool = False) -> State | None:
        """The state as of the last commit; None in a new folder.

        Args:
            layout: that the run has to have.
            again: have the next commit write all of it.

        Raises:
            UnusableError: the run has another layout.
            StoreError: files of it are missing or damaged.

        """
        stored = self.layout()
        if stored is None or self._files.weights is None:
            return None
        difference = layout.difference(stored)
        if difference:
            raise UnusableError(
                f"run folder {self.folder}: its model is not the one that the task builds: {difference} in the folder;"
                " choose another folder, put the old model back, or carry over what fits with --new-run"
            )
        try:
            with self._translated():
                state = self._read(layout)
                # What an earlier process wrote into the log, and may not have synced, is synced before files go.
                if self._tables.checkpoint():
                    self._collect()
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"run folder {self.folder}: run.sqlite is damaged: {error!r}; take a copy of it"
            ) from error
        self._written = None if again else (state.version, len(state.buffer.updates))
        return state

    def commit(self, state: State, news: News) -> None:
        """Make the state durable, with what is new since the last commit.

        Raises:
            StoreError: nothing was committed. What is in memory has to be forgotten, and the last commit read again.

        """
        self.write(self.take(state, news))

    def take(self, state: State, news: News, *, copy_buffer: bool = False) -> Commit:
        """What a commit of this state would write.

        Args:
            state: all of it.
            news: what is new since the last commit.
            copy_buffer: it may be folded into while the commit is written. Other vectors are never changed in place.

        """
        before = _Files(number=self._files.number) if self._anew else self._files
        number = before.number
        files: dict[str, dict[str, Vector]] = {}

        def new(kind: str, **vectors: Vector | None) -> str:
            nonlocal number
            number += 1
            name = f"{kind}-{number}.safetensors"
            files[name] = {key: vector for key, vector in vectors.items() if vector is not None}
            return name

        main, buffer = before.weights, before.buffer
        bases = {v: before.bases.get(v) or new("base", weights=base) for v, base in state.bases.items()}
        if self._written is None or self._written[0] != state.version or main is None:
            main = new("weights", weights=state.weights, velocity=state.velocity)
        same = self._written is not None and self._written[0] == state.version
        rows = before.rows[: len(state.buffer.rows)] if same else ()
        rows += tuple(new("update", update=row) for row in state.buffer.rows[len(rows) :])
        summed = len(state.buffer.rows) < len(before.rows)  # what was kept is in the sums now: another strategy
        if len(state.buffer.updates) == len(state.buffer.rows):
            buffer = None
        elif self._written != (state.version, len(state.buffer.updates)) or buffer is None or summed:
            buffer = new("buffer", buffer=state.buffer.total.copy() if copy_buffer else state.buffer.total)
        refers = _Files(main, buffer, rows, bases, number)
        statements = self._tables.forget() if self._anew else []
        statements += self._tables.statements(state, news)
        keep = {"weights": main, "buffer": buffer, "rows": rows, "bases": bases, "number": number}
        statements.append(self._tables.keep("files", keep))
        if before.weights is None or self._anew:
            statements.append(self._tables.keep("layout", state.layout.encoded.hex()))
        return Commit(files, statements, refers, state.version, len(state.buffer.updates))

    def write(self, commit: Commit) -> None:
        """Write it; from any thread, one at a time.

        Raises:
            StoreError: as for `commit`.

        """
        try:
            if commit.files:
                write_files(self.folder, commit.files, sync=self._sync, step=self._step)
            with self._tables.transaction():
                self._tables.write(commit.statements)
                self._step("transaction-open")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"run folder {self.folder}: the commit failed: {error}; is the disk full?") from error
        self._step("committed")
        gone = self._files.names() - commit.refers.names()
        self._files, self._written, self._anew = commit.refers, (commit.version, commit.buffered), False
        for name in gone:
            with suppress(OSError):  # then the next start removes it
                (self.folder / name).unlink()

    def reopen(self) -> None:
        """Forget the connection to a database whose commit failed, and open it again.

        Raises:
            StoreError: the disk does not work yet.

        """
        self._tables.close()
        self._open()
        with self._translated():
            # What the failed sync may have left in the log alone is now synced in another file, or it is an error.
            if not self._tables.checkpoint():
                raise StoreError(f"run folder {self.folder}: another process reads the database")

    def archive(self, run: str) -> Path:
        """Keep a copy of the run in a folder of its own inside this one, for `begin_anew`; where it is.

        Raises:
            StoreError: there is no room for it.

        """
        aside = self.folder / f"run-{run[:8]}"
        try:
            aside.mkdir(exist_ok=True)
            for old in aside.iterdir():  # of an attempt that a crash ended
                old.unlink()
            for name in self._files.names():
                os.link(self.folder / name, aside / name)
            self._tables.copy_to(aside / "run.sqlite")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"run folder {self.folder}: the old run cannot be kept in {aside}: {error}") from error
        return aside

    def begin_anew(self) -> None:
        """The next commit is the first of another run: ledger and history of the old one go in the same step."""
        self._anew, self._written = True, None

    def history(self) -> Iterator[dict[str, Any]]:
        """How each version came to be, oldest first, with what was measured of it."""
        with self._translated():
            yield from self._tables.history()

    def close(self) -> None:
        """Let the folder go."""
        self._tables.close()
        self._lock.close()

    def _open(self) -> None:
        with self._translated():
            self._tables = Tables(self.folder / "run.sqlite")
        try:
            with self._translated():
                self._claim()
                saved = self._tables.get("files") or {}
        except StoreError:
            self._tables.close()
            raise
        bases = {int(version): name for version, name in saved.get("bases", {}).items()}
        self._files = _Files(
            saved.get("weights"), saved.get("buffer"), tuple(saved.get("rows", ())), bases, saved.get("number", 0)
        )
        self._written, self._anew = None, False

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"run folder {self.folder}: run.sqlite cannot be used: {error}") from error

    def _claim(self) -> None:
        found, theirs = self._tables.get("format"), self._tables.get("federation")
        if found is None:
            with self._tables.transaction():
                keep = self._tables.keep
                self._tables.write([keep("federation", self._federation), keep("format", FORMAT)])
        elif found != FORMAT:
            newer = "update FedMQ" if found > FORMAT else "it is of an early development version; choose another folder"
            raise UnusableError(f"run folder {self.folder}: format {found}, this FedMQ reads {FORMAT}; {newer}")
        elif theirs != self._federation:
            raise UnusableError(
                f"run folder {self.folder}: of federation {theirs!r}, expected {self._federation!r}; choose another"
                " folder"
            )

    def _read(self, layout: Layout) -> State:
        files = self._files
        assert files.weights is not None
        vectors = read_vectors(self.folder / files.weights)
        total = read_vectors(self.folder / files.buffer)["buffer"] if files.buffer else np.zeros(layout.size, "f4")
        state = State(self._tables.get("state")["run"], layout, vectors["weights"], Buffer(total))
        state.buffer.rows = [read_vectors(self.folder / name)["update"] for name in files.rows]
        state.velocity = vectors.get("velocity")
        state.bases = {v: read_vectors(self.folder / name)["weights"] for v, name in files.bases.items()}
        self._tables.restore(state)
        return state

    def _collect(self) -> None:
        """Remove what a crash left: files that nothing refers to."""
        for path in self.folder.iterdir():
            ours = re.fullmatch(r"(weights|buffer|update|base)-\d+\.safetensors(\.part)?", path.name)
            if ours and path.name not in self._files.names():
                path.unlink(missing_ok=True)
