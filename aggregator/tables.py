"""The rows of a run: history, scores, the small figures and, by `LedgerRows`, the ledger, in one SQLite database."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fedmq.aggregator.buffer import Folded
from fedmq.aggregator.ledger_rows import SCHEMA, LedgerRows, Statement
from fedmq.aggregator.quarantine import Held
from fedmq.aggregator.state import News, State, VersionRecord
from fedmq.aggregator.tempo import Tempo
from fedmq.schemas.messages import Evaluation

__all__ = ["Tables"]

_SCHEMA = """
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE history (
    version INTEGER PRIMARY KEY, record TEXT NOT NULL,
    accepted INTEGER NOT NULL, -- updates, ever, when it was made
    devices TEXT, aggregator TEXT);
CREATE TABLE score (
    client_id TEXT PRIMARY KEY, version INTEGER NOT NULL, evaluation TEXT NOT NULL) WITHOUT ROWID;
"""
_FOLDED = TypeAdapter(list[Folded])
_RECORD = TypeAdapter(VersionRecord)


class Tables:
    """The database of one run. Raises sqlite3.Error; the store translates it.

    Args:
        path: of the file; a new one is made. One that is there is not changed by opening it, whatever is in it.

    """

    def __init__(self, path: Path) -> None:
        # One thread opens it, another may serve the run, a third may write a large commit; never two at once.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            made = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            if not made:
                self._db.executescript(f"BEGIN; {_SCHEMA} {SCHEMA} COMMIT;")
        except sqlite3.Error:
            self._db.close()
            raise
        self._ledger = LedgerRows()

    def close(self) -> None:
        """Let the database go."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the writes inside, or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def checkpoint(self) -> bool:
        """Move everything from the log into the database file, and sync that; whether no reader was in the way."""
        busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def copy_to(self, path: Path) -> None:
        """Make a copy as of the last transaction."""
        self._db.execute("VACUUM INTO ?", (str(path),))

    def get(self, key: str) -> Any:
        """A small figure by name; None if there is none."""
        row = self._db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def keep(self, key: str, value: Any) -> Statement:
        """What keeps a small figure."""
        return "INSERT OR REPLACE INTO state VALUES (?, ?)", [(key, json.dumps(value))]

    def write(self, statements: list[Statement]) -> None:
        """Execute them in order; inside a transaction."""
        for sql, rows in statements:
            self._db.executemany(sql, rows)

    def forget(self) -> list[Statement]:
        """What removes everything of a run."""
        return [("DELETE FROM history", [()]), ("DELETE FROM score", [()]), *self._ledger.forget()]

    def statements(self, state: State, news: News) -> list[Statement]:
        """The rows of a commit, as of now."""
        made = dict(islice(reversed(state.tempo.made_at), len(news.versions)))
        history = [
            (r.version, _RECORD.dump_json(r).decode(), made.get(r.version, state.accepted)) for r in news.versions
        ]
        devices = [(of.model_dump_json(), v) for v in news.scored_versions if (of := state.scores.of(v)) is not None]
        own = [(json.dumps(metrics), version) for version, metrics in news.measured.items()]
        scores = [(c, v, e.model_dump_json()) for c in news.scored if c in state.scores.newest
                  for v, e in [state.scores.newest[c]]]  # fmt: skip
        written: list[Statement] = [
            self.keep("state", _figures(state)),
            ("INSERT OR REPLACE INTO history (version, record, accepted) VALUES (?, ?, ?)", history),
            *self._ledger.statements(state.ledger, news),
            ("INSERT OR REPLACE INTO score VALUES (?, ?, ?)", scores),
            ("UPDATE history SET devices = ? WHERE version = ?", devices),
            ("UPDATE history SET aggregator = ? WHERE version = ?", own),
        ]
        return [statement for statement in written if statement[1]]

    def restore(self, state: State) -> None:
        """Fill everything but the vectors of a state from the last commit."""
        saved = self.get("state")
        for name in ("version", "accepted", "staleness_sum", "uplink_bytes", "seconds", "finished", "replaced"):
            setattr(state, name, saved[name])
        state.verdicts = saved.get("verdicts", 0)
        state.rejected, state.later = Counter(saved["rejected"]), Counter(saved.get("later", {}))
        day, counts = saved.get("today", (0, {}))
        state.allowances.today = day, counts
        quarantine = saved.get("quarantine", {"held": {}, "suspects": {}})
        state.quarantine.held = {client: Held(*held) for client, held in quarantine["held"].items()}
        state.quarantine.suspects = {client: (points, at) for client, (points, at) in quarantine["suspects"].items()}
        state.norms.newest = dict(saved.get("norms", []))
        state.tempo = self._tempo(saved["tempo"])
        buffer = saved["buffer"]
        state.buffer.weight, state.buffer.mass, state.buffer.opened = buffer["weight"], buffer["mass"], buffer["opened"]
        state.buffer.updates = _FOLDED.validate_python(buffer["updates"])
        self._ledger.restore(self._db, state.ledger)
        for client_id, version, evaluation in self._db.execute("SELECT client_id, version, evaluation FROM score"):
            state.scores.add(client_id, version, Evaluation.model_validate_json(evaluation))
        state.scores.restored()

    def history(self) -> Iterator[dict[str, Any]]:
        """How each version came to be, oldest first, with what was measured of it."""
        rows = self._db.execute("SELECT record, devices, aggregator FROM history ORDER BY version")
        for record, devices, aggregator in rows:
            measured = {"devices": devices, "aggregator": aggregator}
            yield json.loads(record) | {key: json.loads(text) if text else None for key, text in measured.items()}

    def _tempo(self, saved: dict[str, Any]) -> Tempo:
        tempo = Tempo(saved["clients_at_work"], saved["buffer_size"])
        tempo.intervals.extend(saved["intervals"])
        tempo.samples.extend(saved["samples"])
        newest = "SELECT version, accepted FROM history ORDER BY version DESC LIMIT ?"
        tempo.made_at.extend(reversed(self._db.execute(newest, (tempo.made_at.maxlen,)).fetchall()))
        return tempo


def _figures(state: State) -> dict[str, Any]:
    tempo, buffer = state.tempo, state.buffer
    return {
        "run": state.run,
        "version": state.version,
        "accepted": state.accepted,
        "verdicts": state.verdicts,
        "rejected": dict(state.rejected),
        "later": dict(state.later),
        "today": state.allowances.today,
        "quarantine": {"held": state.quarantine.held, "suspects": state.quarantine.suspects},
        "staleness_sum": state.staleness_sum,
        "uplink_bytes": state.uplink_bytes,
        "seconds": state.seconds,
        "finished": state.finished,
        "replaced": state.replaced,
        "norms": list(state.norms.newest.items()),
        "buffer": {
            "weight": buffer.weight,
            "mass": buffer.mass,
            "opened": buffer.opened,
            "updates": _FOLDED.dump_python(buffer.updates, mode="json"),
        },
        "tempo": {
            "clients_at_work": tempo.clients_at_work,
            "buffer_size": tempo.buffer_size,
            "intervals": list(tempo.intervals),
            "samples": list(tempo.samples),
        },
    }
