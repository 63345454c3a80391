"""The device's spool: an update is here from the moment that it exists until its receipt. The only disk writer.

One SQLite database, so that an update, what stays on the device, and the next sequence number change in one step.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from fedmq.edge_client.ahead import IN_A_FILE_BYTES, Ahead
from fedmq.edge_client.bodies import BodyFiles
from fedmq.edge_client.budget import Spent
from fedmq.edge_client.feedback import Residual, put_back
from fedmq.edge_client.training import LocalState
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import ConfigError, StoreError
from fedmq.schemas.messages import Offer, UpdateId
from fedmq.schemas.refusals import refused

__all__ = ["MOST_UPDATES", "Outbox"]

MOST_UPDATES = 63
"""How far apart the sequence numbers of waiting updates may be, both ends counted.

One less than what the aggregator's ledger remembers of an outbox, so that no update here can be forgotten there.
"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
    sequence INTEGER PRIMARY KEY, offer TEXT NOT NULL,
    body BLOB NOT NULL); -- empty if it lies in a file of its own
CREATE TABLE IF NOT EXISTS returned ( -- did not count, and is not in the residual yet
    sequence INTEGER PRIMARY KEY, offer TEXT NOT NULL, body BLOB NOT NULL);
"""


class Outbox:
    """A device's updates that have no verdict yet, oldest first.

    Args:
        folder: where it lives; None keeps it in memory, for the sandbox.
        most_bytes: what all bodies together may take; the oldest go first. The newest is always kept.
        new_id: makes an outbox id, 128 random bits in hex.

    Raises:
        StoreError: the folder cannot be used, or another client works in it.

    """

    def __init__(self, folder: Path | None, *, most_bytes: int = 1 << 30, new_id: Any = None) -> None:
        self._new_id = new_id or (lambda: os.urandom(16).hex())
        self._most_bytes = most_bytes
        self._files = BodyFiles(folder, "update") if folder else None
        self._residual_files = BodyFiles(folder, "residual") if folder else None
        self._where = f"device folder {folder}" if folder else "outbox"
        self._lock = _locked(folder) if folder else None
        try:
            # Opened in one thread, served in another; never two at once.
            path = folder / "outbox.sqlite" if folder else ":memory:"
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # For an owner that does not close it: the sandbox has no end of its own.
            self._close_db = weakref.finalize(self, self._db.close)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            # Some builds overwrite what is deleted: a card would be written twice for nothing that is secret.
            self._db.execute("PRAGMA secure_delete = OFF")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('outbox_id', ?), ('next', 0)", (self._new_id(),))
            if self._files is not None:
                rows = self._db.execute("SELECT sequence FROM entry UNION SELECT sequence FROM returned")
                here = {sequence for (sequence,) in rows}
                self._files.remove_all_but(here)
            if self._residual_files is not None:
                self._residual_files.remove_all_but({self._meta("residual_number")})
        except (sqlite3.Error, OSError) as error:
            if self._lock:
                self._lock.close()
            raise StoreError(f"{self._where}: outbox.sqlite cannot be used: {error}") from error

    def next_sequence(self) -> int:
        """The number of the update that is added next."""
        return int(self._meta("next"))

    def ahead(self) -> Ahead:
        """Where another thread may write the update that is added next."""
        number = (self._meta("residual_number") or 0) + 1
        return Ahead(self._where, self.next_sequence(), number, self._files, self._residual_files)

    def add(
        self, offer: Offer, body: bytes | memoryview | Ahead, local: LocalState | None, residual: Residual | None = None
    ) -> tuple[Offer, list[int]]:
        """Keep an update, in one step with what stays on the device.

        Args:
            offer: its header; the update id in it is replaced.
            body: the encoded update, or all that was written ahead of it, with its residual.
            local: local parameters and integer buffers to go on with.
            residual: what this update and those before it have left out; None leaves it as it was. The updates that
                were returned to the one before, and that it took, are gone.

        Returns:
            The offer with its id, and the sequence numbers that had to go to make room.

        Raises:
            StoreError: nothing was kept.
            ConfigError: nor was it, because something of `local` is of a type that cannot be.

        """
        if isinstance(body, Ahead):
            ahead = body
        else:
            ahead = self.ahead()
            ahead.write(body, residual)
        state = _serialised(local)  # not within the transaction, where what cannot be kept would look like damage
        gone = list(ahead.returned)
        with self._transaction() as execute:
            update = UpdateId(outbox_id=self._meta("outbox_id"), sequence=self._meta("next"))
            assert update.sequence == ahead.sequence, "one update is made at a time"
            offer = offer.model_copy(update={"update": update})
            text = offer.model_dump_json(exclude_none=True)
            execute("INSERT INTO entry VALUES (?, ?, ?)", (update.sequence, text, ahead.body))
            execute("UPDATE meta SET value = ? WHERE key = 'next'", (update.sequence + 1,))
            if state is not None:
                execute("INSERT OR REPLACE INTO meta VALUES ('local', ?)", (state,))
            if ahead.residual is not None:
                told, data = ahead.residual
                for row in (("residual_of", told), ("residual_number", ahead.residual_number), ("residual", data)):
                    execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)
                gone += self._of_another(execute, told)
            dropped = self._overflowing()
            for sequence in dropped:
                execute("DELETE FROM entry WHERE sequence = ?", (sequence,))
            for sequence in gone:
                execute("DELETE FROM returned WHERE sequence = ?", (sequence,))
        for sequence in (*dropped, *gone):
            self._remove_file(sequence)
        if ahead.residual is not None and self._residual_files is not None:
            self._residual_files.remove(ahead.residual_number - 1)
        return offer, dropped

    def pending(self) -> list[Offer]:
        """The headers of what is here, oldest first."""
        with self._translated():
            rows = self._db.execute("SELECT offer FROM entry ORDER BY sequence").fetchall()
            return [Offer.model_validate_json(text) for (text,) in rows]

    def offer(self, sequence: int) -> Offer:
        """The header of one update."""
        with self._translated():
            return Offer.model_validate_json(self._one("offer", sequence))

    def body(self, sequence: int, start: int = 0, end: int | None = None) -> bytes:
        """The encoded update, or its bytes from `start` up to, not including, `end`."""
        size = self.offer(sequence).size
        end = size if end is None else end
        with self._translated():
            if self._files is not None and size > IN_A_FILE_BYTES:
                return self._files.read(sequence, start, end)
            return bytes(self._one("body", sequence))[start:end]

    def delete(self, sequence: int, *, forgotten: bool = False, returns: bool = False) -> None:
        """Let an update go: it has its verdict.

        Args:
            sequence: of the update.
            forgotten: the verdict is that the aggregator remembers its outbox id no more, or not so far back. Updates
                that are made later have a new one; else a device that starts from one old image expires for ever.
            returns: what it would have brought belongs to the residual from now on.

        """
        offer = self.offer(sequence)
        left = offer.update.outbox_id if forgotten else None
        # It stays as it is until an update is made that takes it: to add up large vectors is nothing for between two
        # messages, and the one that is being made meanwhile began with the residual as it was.
        returns = returns and self._is_of_the_residual(offer)
        with self._transaction() as execute:
            # Only if it is still the newest: the aggregator remembers no more than two.
            if left is not None and left == self._meta("outbox_id"):
                execute("UPDATE meta SET value = ? WHERE key = 'outbox_id'", (self._new_id(),))
            if returns:
                execute("INSERT INTO returned SELECT * FROM entry WHERE sequence = ?", (sequence,))
            execute("DELETE FROM entry WHERE sequence = ?", (sequence,))
        if not returns:
            self._remove_file(sequence)

    def renew(self, sequence: int) -> Offer:
        """Give this update, and all later ones, a new outbox id: the old one was used elsewhere."""
        offer = self.offer(sequence)
        old = offer.update.outbox_id
        # It follows from the old one: whenever the same image is put back, the same update gets the same id again.
        new = hashlib.sha256(old.encode()).hexdigest()[: len(old)]
        offer = offer.model_copy(update={"update": UpdateId(outbox_id=new, sequence=sequence)})
        with self._transaction() as execute:
            text = offer.model_dump_json(exclude_none=True)
            execute("UPDATE entry SET offer = ? WHERE sequence = ?", (text, sequence))
            execute("UPDATE meta SET value = ? WHERE key = 'outbox_id' AND value = ?", (new, old))
        return offer

    def local(self) -> LocalState | None:
        """What stayed on the device with the newest update."""
        state = self._meta("local")
        with self._translated():
            return safetensors.numpy.load(state) if state is not None else None

    def residual(self) -> Residual | None:
        """What the updates of the last run with a lossy codec have left out, and those of them that did not count.

        What is large of it is read from its files when it is needed. It stays good until the next update is added.
        """
        told = self._meta("residual_of")
        if told is None:
            return None
        with self._translated():
            run, layout, statistics, size = json.loads(told)
            number, data = self._meta("residual_number"), self._meta("residual")
            if self._residual_files is not None and 4 * size > IN_A_FILE_BYTES:
                data = self._residual_files.view(number, 4 * size)
            left = np.frombuffer(data, "<f4", size).astype(np.float32, copy=False)
            residual = Residual(run, layout, statistics, left)
            for text, body in self._db.execute("SELECT offer, body FROM returned ORDER BY sequence").fetchall():
                offer = Offer.model_validate_json(text)
                if self._files is not None and offer.size > IN_A_FILE_BYTES:
                    body = self._files.view(offer.update.sequence, offer.size)
                residual = put_back(residual, offer, body)
            return residual

    def spent(self) -> Spent | None:
        """What was kept last of a day's traffic."""
        told = self._meta("spent")
        return Spent(*json.loads(told)) if told else None

    def spent_later(self) -> Spent | None:
        """What was kept of the later day from which the clock went back."""
        told = self._meta("spent_later")
        return Spent(*json.loads(told)) if told else None

    def keep_spent(self, spent: Spent, later: Spent | None = None) -> None:
        """Keep what a day's traffic comes to, and a later day's from which the clock went back."""
        with self._transaction() as execute:
            for key, day in (("spent", spent), ("spent_later", later)):
                row = json.dumps([day.day, day.uplink, day.downlink]) if day else None
                execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, row))

    def begin_session(self) -> int:
        """The number of this start of the device: one more than that of the last."""
        session = (self._meta("session") or 0) + 1
        with self._transaction() as execute:
            execute("INSERT OR REPLACE INTO meta VALUES ('session', ?)", (session,))
        return int(session)

    def aggregator_sessions(self) -> dict[str, int]:
        """The aggregator's newest session that this device has ever heard, for each public key that signed one."""
        told = self._meta("aggregator_sessions")
        with self._translated():
            return dict(json.loads(told)) if told else {}

    def keep_aggregator_session(self, session: int, key: str) -> None:
        """Remember that this session was heard, signed with this key."""
        told = json.dumps(self.aggregator_sessions() | {key: session})
        with self._transaction() as execute:
            execute("INSERT OR REPLACE INTO meta VALUES ('aggregator_sessions', ?)", (told,))

    def close(self) -> None:
        """Let the folder go; a thread that still writes ahead puts nothing in place any more."""
        for files in (self._files, self._residual_files):
            if files is not None:
                files.close()
        self._close_db()
        if self._lock:
            self._lock.close()

    def _is_of_the_residual(self, offer: Offer) -> bool:
        told = self._meta("residual_of")
        if told is None or not codec_named(offer.codec).feedback:
            return False
        with self._translated():
            run, layout, *_ = json.loads(told)
        return bool((offer.run, offer.layout) == (run, layout))

    def _of_another(self, execute: Any, told: str) -> list[int]:
        """Updates that were returned to a residual that is no more."""
        run, layout, *_ = json.loads(told)
        theirs = "(json_extract(offer, '$.run'), json_extract(offer, '$.layout'))"
        rows = execute(f"SELECT sequence FROM returned WHERE {theirs} <> (?, ?)", (run, layout))  # noqa: S608
        return [sequence for (sequence,) in rows]

    def _one(self, column: Literal["offer", "body"], sequence: int) -> Any:
        row = self._db.execute(f"SELECT {column} FROM entry WHERE sequence = ?", (sequence,)).fetchone()  # noqa: S608
        if row is None:
            raise StoreError(f"{self._where}: there is no update {sequence}")
        return row[0]

    def _overflowing(self) -> list[int]:
        sizes = "SELECT sequence, json_extract(offer, '$.size') FROM entry ORDER BY sequence DESC"
        rows = self._db.execute(sizes).fetchall()
        newest, dropped, total = rows[0][0], [], 0
        for sequence, size in rows:
            total += size
            # Numbers count, not updates: those between may have been judged, and push the old ones out there.
            if sequence <= newest - MOST_UPDATES or (sequence < newest and total > self._most_bytes):
                dropped.append(sequence)
        return dropped

    def _remove_file(self, sequence: int) -> None:
        if self._files is not None:
            self._files.remove(sequence)

    def _meta(self, key: str) -> Any:
        with self._translated():
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db.execute
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._where}: {error}; is the disk full or read-only?") from error
        except (SafetensorError, TypeError, ValueError) as error:
            raise StoreError(f"{self._where}: outbox.sqlite is damaged, move it away: {error}") from error


def _serialised(local: LocalState | None) -> bytes | None:
    try:
        return safetensors.numpy.save(dict(local)) if local else None
    except (SafetensorError, TypeError) as error:
        raise ConfigError(f"what stays on the device is of a type that cannot be kept: {error}") from error


def _locked(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "a+")  # noqa: SIM115 (held until the outbox is closed)
    except OSError as error:
        raise refused(f"device folder {folder}", error, "choose another with [device] folder") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StoreError(f"device folder {folder}: another client works in it; give each its own folder") from error
    return lock
